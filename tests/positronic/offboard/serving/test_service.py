import asyncio
from collections.abc import Mapping
from typing import Any

from positronic.offboard.models.store import ModelStore
from positronic.offboard.serving.channel import Answer
from positronic.offboard.serving.limits import ServerOptions
from positronic.offboard.serving.service import Service
from tests.positronic.offboard.loops import in_loop, settle
from tests.positronic.offboard.small_models import Source


class Question:
    """An observation and its answer, which never were bytes."""

    def __init__(self, obs: Mapping[str, Any]) -> None:
        self.obs = obs
        self.answer: Answer | None = None

    def decode(self) -> Mapping[str, Any]:
        return self.obs

    def encode(self, answer: Answer) -> bytes:
        self.answer = answer
        return b"answered"


class QueueChannel:
    """A client in the same process, over queues."""

    client = "here"

    def __init__(self) -> None:
        self.questions: asyncio.Queue[Question | None] = asyncio.Queue()
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        self.may_close = asyncio.Event()

    async def status(self, status: str, message: str) -> None:
        self.said.put_nowait(status)

    async def ready(self, meta: Mapping[str, Any]) -> None:
        self.said.put_nowait(dict(meta))

    async def receive(self) -> Question | None:
        return await self.questions.get()

    async def send(self, reply: bytes) -> None:
        self.said.put_nowait(reply)

    async def refuse(self, error: str, code: int) -> None:
        self.said.put_nowait((code, error))

    async def close(self, code: int, reason: str) -> None:
        self.said.put_nowait((code, reason))
        await self.may_close.wait()


def service(**options: Any) -> Service:
    store = ModelStore(Source(["010000"]), "010000", memory_bytes=1000)
    return Service(store, ServerOptions(**options), {"host": "here"})


@in_loop
async def test_a_session_needs_no_web_socket() -> None:
    server, channel = service(), QueueChannel()
    serving = asyncio.create_task(server.serve(channel))
    assert await channel.said.get() == "loading"
    assert (await channel.said.get())["host"] == "here"
    question = Question({"grip": 0.25})
    channel.questions.put_nowait(question)
    assert await channel.said.get() == b"answered"
    assert question.answer is not None
    assert question.answer.result is not None
    assert question.answer.result[0]["target_grip"] == 0.25
    channel.questions.put_nowait(None)
    await serving
    assert server.sessions == []
    server.close()
    server.store.close()


@in_loop
async def test_a_drain_meets_a_session_that_is_just_saying_goodbye() -> None:
    server, channel = service(idle_timeout_s=0.01), QueueChannel()
    serving = asyncio.create_task(server.serve(channel))
    while await channel.said.get() != (1001, "idle for 0.01 s"):
        pass
    draining = asyncio.create_task(server.drain(0))
    await settle()
    assert len(server.sessions) == 1
    channel.may_close.set()
    assert await draining
    await serving
    server.close()
    server.store.close()
