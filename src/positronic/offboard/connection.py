"""One WebSocket connection to the server, from its acceptance to its end."""

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from positronic.errors import PositronicError, SessionError
from positronic.offboard import wire
from positronic.offboard.session import SessionMachine, SessionState
from positronic.offboard.store import ModelStore
from positronic.policy.base import Policy, Session

logger = logging.getLogger(__name__)

# Public clients give up after 30 s without a status frame.
STATUS_INTERVAL_S = 5.0
CLOSE_REFUSED, CLOSE_INTERNAL_ERROR = 1008, 1011

_numbers = itertools.count(1)


class Connection:
    """Serves one session: handshake, then one reply for each observation, in order."""

    def __init__(
        self,
        websocket: WebSocket,
        store: ModelStore,
        executor: Executor,
        server_meta: Mapping[str, Any],
    ) -> None:
        """Serve ``websocket``.

        Args:
            websocket: Not accepted yet.
            store: Where models come from.
            executor: Where inference runs, off the event loop.
            server_meta: What every ready message says beside the model's own facts.
        """
        self._websocket = websocket
        self._store, self._executor, self._server_meta = store, executor, server_meta
        self._machine = SessionMachine()
        self._name = f"session {next(_numbers)}"

    async def run(self, requested: str | None) -> None:
        """Serve until the client leaves; ``requested`` is the checkpoint it asked for."""
        await self._websocket.accept()
        session: Session | None = None
        try:
            policy = await self._model(requested)
            if policy is None:
                return
            session = policy.new_session()
            await self._say_ready(session)
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                await self._send(await self._reply(session, message))
        except WebSocketDisconnect:
            pass
        finally:
            if session is not None:
                session.close()
            self._machine.to(SessionState.CLOSED)
            logger.info("%s closed", self._name)

    async def _model(self, requested: str | None) -> Policy | None:
        """Get the model, keeping the client informed; None if the session was refused."""
        model_id = self._store.default
        if requested is not None:
            try:
                model_id = await asyncio.to_thread(self._store.source.resolve, requested)
            except PositronicError as error:
                await self._refuse(str(error), CLOSE_REFUSED)
                return None
        logger.info("%s opened on %s by %s", self._name, model_id, self._client())
        loading = asyncio.ensure_future(self._store.get(model_id))
        began = time.monotonic()
        try:
            while not (self._store.ready(model_id) or loading.done()):
                self._machine.to(SessionState.LOADING)
                await self._send(self._status(model_id, time.monotonic() - began))
                await asyncio.wait({loading}, timeout=STATUS_INTERVAL_S)
            return await loading
        except PositronicError as error:
            await self._refuse(str(error), CLOSE_INTERNAL_ERROR)
        except WebSocketDisconnect:
            raise
        except Exception:
            logger.exception("%s: checkpoint %s failed to load", self._name, model_id)
            await self._refuse(f"Checkpoint {model_id} failed to load", CLOSE_INTERNAL_ERROR)
        finally:
            loading.cancel()
        return None

    def _status(self, model_id: str, seconds: float) -> dict[str, str]:
        other = self._store.loading
        if other not in (None, model_id):
            message = f"Waiting for checkpoint {other} to finish loading... ({seconds:.0f} s)"
            return {"status": "waiting", "message": message}
        message = f"Loading checkpoint {model_id}... ({seconds:.0f} s)"
        return {"status": "loading", "message": message}

    async def _say_ready(self, session: Session) -> None:
        stack = local_stack(session.meta.get("image_sizes") or {})
        meta = {**session.meta, **self._server_meta, "local_stack": stack}
        await self._send({"status": "ready", "meta": meta})
        self._machine.to(SessionState.READY)

    async def _reply(self, session: Session, message: Mapping[str, Any]) -> dict[str, Any]:
        self._machine.require(SessionState.READY)
        try:
            obs = _observation(message)
        except SessionError as error:
            return {"error": str(error)}
        self._machine.to(SessionState.INFERRING)
        try:
            loop = asyncio.get_running_loop()
            return {"result": await loop.run_in_executor(self._executor, session.infer, obs)}
        except PositronicError as error:
            return {"error": str(error)}
        except Exception as error:
            # Its text may hold paths of this machine; those who run the server see all of it.
            logger.exception("%s: inference failed", self._name)
            return {"error": f"internal error ({type(error).__name__}); see the server's log"}
        finally:
            self._machine.to(SessionState.READY)

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._websocket.send_bytes(wire.pack(message))

    async def _refuse(self, error: str, code: int) -> None:
        logger.info("%s refused: %s", self._name, error)
        await self._send({"status": "error", "error": error})
        reason = error.split(":")[0].split(" in ")[0]
        await self._websocket.close(code, reason[:100] if code == CLOSE_REFUSED else "")

    def _client(self) -> str:
        client = self._websocket.client
        return f"{client.host}:{client.port}" if client else "unknown"


def local_stack(image_sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a client should do on its side; public ones refuse a server that does not.

    Play chunks by their timestamps, and shrink images to ``image_sizes`` (``[width, height]`` by
    key) where the model takes any.
    """
    stack: list[dict[str, Any]] = [{"name": "chunked_schedule"}]
    if image_sizes:
        width, height = (max(size[i] for size in image_sizes.values()) for i in (0, 1))
        stack.append({"name": "restrict_image_size", "args": {"width": width, "height": height}})
    return {"seq": stack}


def _observation(message: Mapping[str, Any]) -> dict[str, Any]:
    data = message.get("bytes")
    if data is None:
        raise SessionError("expected a binary frame with a msgpack map, got text")
    obs = wire.unpack(data)
    if not isinstance(obs, dict):
        raise SessionError(f"expected a map of observations, got a {type(obs).__name__}")
    strange = [key for key in obs if not isinstance(key, str)]
    if strange:
        raise SessionError(f"the keys of an observation are strings, got {strange[0]!r}")
    return obs
