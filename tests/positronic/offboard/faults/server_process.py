"""The real server with models that a test can follow, in a process of its own.

There it can be killed, and what it holds can be counted. Its one argument is a JSON object of
options; it prints its port, and "ready", and answers each line of its standard input with a line.
"""

import asyncio
import collections
import gc
import json
import logging
import math
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import psutil

from positronic.errors import CheckpointError, CodecError
from positronic.offboard.models.batching import Batching
from positronic.offboard.models.store import ModelStore
from positronic.offboard.serving.limits import ServerOptions
from positronic.offboard.serving.logs import configure
from positronic.offboard.serving.process import bind
from positronic.offboard.serving.server import serve_forever
from positronic.policy import Action
from tests.positronic.offboard.small_models import NBYTES, CountingPolicy, CountingSession, Source

# Stdout is a conversation with the test; other threads that print would break it.
_out = threading.Lock()


def say(answer: Any) -> None:
    with _out:
        print(json.dumps(answer), flush=True)


class CheckingSession(CountingSession):
    """Refuses what is no number, as a codec does: no error of a frame is the server's."""

    def prepare(self, obs: Mapping[str, Any]) -> Any:
        grip = obs.get("grip", 0.0)
        if not isinstance(grip, int | float | np.floating) or not math.isfinite(grip):
            raise CodecError(f"grip is a {type(grip).__name__}, expected a finite number")
        self.padding = bytes(int(obs.get("padding", 0)))
        return super().prepare(obs)

    def finish(self, prediction: Any) -> list[Action]:
        return [{**action, "padding": self.padding} for action in super().finish(prediction)]


class CheckingPolicy(CountingPolicy):
    """Keeps no list of what it was asked, which would grow."""

    def new_session(self, context: Mapping[str, Any] | None = None) -> CheckingSession:
        return CheckingSession(self)

    def predict(self, requests: Sequence[Any]) -> list[float]:
        self.batches.clear()
        return super().predict(requests)


class CheckingSource(Source):
    def load(self, model_id: str, say: Callable[[str], None]) -> CountingPolicy:
        super().load(model_id, say)
        return CheckingPolicy(model_id, self.meta)


def holdings() -> dict[str, Any]:
    """What the process holds: memory, objects by type, open files and threads."""
    gc.collect()
    objects = collections.Counter(type(value).__qualname__ for value in gc.get_objects())
    process = psutil.Process()
    return {
        "resident": process.memory_info().rss,
        "objects": objects,
        "files": process.num_fds(),
        "threads": process.num_threads(),
    }


class Stalls:
    """The longest time that the event loop was busy with one thing, in its own processor time.

    Not in time by the clock, in which everything else on the machine would count.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            self.longest, before = max(self.longest, now - before), now

    def take(self) -> float:
        longest, self.longest = self.longest, 0.0
        return longest


def control(source: Source, stalls: Stalls) -> None:
    """Do what the test asks for, until it hangs up."""
    for line in sys.stdin:
        order, *names = json.loads(line)
        if order == "holdings":
            say(holdings())
            continue
        if order == "stall":
            say(stalls.take())
            continue
        if order == "release":
            source.hold(names[0]).set()
        elif order == "break":
            source.broken[names[0]] = CheckpointError(f"checkpoint {names[0]} is damaged")
        elif order == "add":
            source.names.append(names[0])
        say("done")
    os._exit(9)  # the test is gone


async def serve(
    source: Source, listener: socket.socket, stalls: Stalls, job: dict[str, Any]
) -> None:
    watching = asyncio.create_task(stalls.watch()) if job.get("stalls") else None
    await serve_forever(
        ModelStore(
            source,
            "010000",
            memory_bytes=10 * NBYTES,
            batching=Batching(**job.get("batching", {})),
        ),
        listener,
        "127.0.0.1",
        lambda model: say("ready"),
        options=ServerOptions(**{"rate_limit": 0, **job.get("options", {})}),
        watch_interval_s=job.get("watch_interval_s", 0.0),
    )
    if watching is not None:
        watching.cancel()


def main() -> None:
    job = json.loads(sys.argv[1])
    if "log_format" in job:
        configure(job["log_format"])
    else:
        logging.basicConfig(level=logging.WARNING, format="%(name)s %(message)s")
    if "files" in job:
        resource.setrlimit(resource.RLIMIT_NOFILE, (job["files"], job["files"]))
    source = CheckingSource(job.get("names", ["010000", "020000"]))
    for name in job.get("held", ()):
        source.hold(name)
    listener = bind("127.0.0.1", 0)
    say(listener.getsockname()[1])
    stalls = Stalls()
    threading.Thread(target=control, args=(source, stalls), daemon=True).start()
    asyncio.run(serve(source, listener, stalls, job))


if __name__ == "__main__":
    main()
