"""openpi's protocol on a port of its own, for robots with openpi's client.

::

    server ──▶ metadata        a map, once the checkpoint is ready
    client ──▶ observation     the raw signals of the contract; ``prompt`` is the task
    server ──▶ {"actions": float32 (H, 8), "server_timing": {...}}
    server ──▶ text, then close 1011     in place of a reply, where there is none

``actions`` are the same commands as in the session protocol, as one array in the order of the
dataset's action: position in metres, unit quaternion, grip (`ACTION_NAMES`); row ``i`` is due ``i /
action_fps`` seconds after the observation. They are decoded commands, not the raw output of the
policy: the quaternion is a rotation, and the grip follows the robot's side of the contract. A
connection is an episode, and ``/`` is the default checkpoint, since openpi lists none.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, override

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from positronic.errors import SessionError
from positronic.offboard import wire
from positronic.offboard.serving.app import guarded
from positronic.offboard.serving.channel import INTERNAL_ERROR, Answer, ClientGone
from positronic.offboard.serving.connection import FrameRequest, WebSocketChannel
from positronic.offboard.serving.service import Service
from positronic.policy.base import Action

ACTION_NAMES = ("x", "y", "z", "qw", "qx", "qy", "qz", "grip")

# Fields of the ready message that concern the session protocol only.
_NOT_FOR_OPENPI = {"compress_images", "host", "jpeg", "local_stack", "port", "request_ids"}


def make_openpi_app(service: Service) -> Starlette:
    """Return an application with openpi's routes for ``service``; the token is an ``Api-Key``."""

    async def session(websocket: WebSocket) -> None:
        await service.serve(OpenpiChannel(websocket))

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("OK\n")

    return Starlette(
        routes=[WebSocketRoute("/", session), Route("/healthz", healthz)],
        middleware=[guarded(service, open_paths=["/healthz"], scheme="Api-Key")],
    )


class _ErrorText(bytes):
    """An error sent as text that ends the session, as openpi's server does."""


class OpenpiChannel(WebSocketChannel):
    """One client of openpi."""

    def __init__(self, websocket: WebSocket) -> None:
        """Wrap ``websocket``, which is not accepted yet."""
        super().__init__(websocket)
        self._accepted = self._over = False
        self._received = 0.0
        self._total_ms: float | None = None

    @override
    async def status(self, status: str, message: str) -> None:
        """Accept the connection: openpi has no status frames; its client waits for the metadata."""
        await self._accept()

    @override
    async def ready(self, meta: Mapping[str, Any]) -> None:
        """Send the metadata."""
        await self._accept()
        await super().send(wire.pack(metadata(meta)))

    @override
    async def receive(self) -> "OpenpiRequest | None":
        """Wait for the next observation."""
        if self._over:
            return None
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        self._received = time.perf_counter()
        return OpenpiRequest(message.get("bytes"), self._total_ms)

    @override
    async def send(self, reply: bytes) -> None:
        """Send one reply; an error is the last one."""
        if isinstance(reply, _ErrorText):
            await self._end(reply.decode(), INTERNAL_ERROR)
            return
        await super().send(reply)
        self._total_ms = (time.perf_counter() - self._received) * 1000

    @override
    async def refuse(self, error: str, code: int) -> None:
        """Refuse with HTTP 503, or with text once the connection is accepted."""
        if self._accepted:
            await self._end(error, code)
            return
        try:
            await self._websocket.send_denial_response(PlainTextResponse(f"{error}\n", 503))
        except WebSocketDisconnect as gone:
            raise ClientGone from gone

    async def _accept(self) -> None:
        if not self._accepted:
            self._accepted = True
            await self._websocket.accept()

    async def _end(self, error: str, code: int) -> None:
        self._over = True
        try:
            await self._websocket.send_text(error)
        except WebSocketDisconnect as gone:
            raise ClientGone from gone
        await self.close(code, error)


class OpenpiRequest(FrameRequest):
    """One observation."""

    def __init__(self, data: bytes | None, previous_total_ms: float | None) -> None:
        """Wrap the bytes of a binary frame, and the total time of the previous reply."""
        super().__init__(data)
        self._previous_total_ms = previous_total_ms

    @override
    def decode(self) -> Mapping[str, Any]:
        """Return the observation, with openpi's ``prompt`` as the task."""
        obs = dict(super().decode())
        if "prompt" in obs:
            obs["task"] = obs.pop("prompt")
        return obs

    @override
    def encode(self, answer: Answer) -> bytes:
        """Make the reply."""
        if answer.reason is not None:
            return _ErrorText(answer.error.encode())
        assert answer.result is not None
        assert answer.timing is not None
        # openpi's server also counts encoding, queueing and decoding as inference.
        timing = {"infer_ms": answer.timing.cost_ms}
        if self._previous_total_ms is not None:
            timing["prev_total_ms"] = self._previous_total_ms
        reply = {
            "actions": action_array(answer.result),
            "server_timing": timing,
            "policy_timing": {"infer_ms": answer.timing.infer_ms},
        }
        return wire.pack(reply)


def metadata(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata for openpi's client: the checkpoint's meta and the action's names."""
    told = {key: value for key, value in meta.items() if key not in _NOT_FOR_OPENPI}
    return {**told, "action_names": ACTION_NAMES}


def action_array(actions: Sequence[Action]) -> NDArray[np.float32]:
    """Return decoded actions as one array ``(H, 8)``, columns as in `ACTION_NAMES`.

    Each row has the sign of the quaternion that is nearest to the row before, so that a client may
    interpolate.

    Raises:
        SessionError: There are no actions, or one is not an end-effector pose.
    """
    from positronic.geom import align_quat, pose_from_wire  # SciPy takes half a second

    kinds = {action.get("robot_command", {}).get("type", "none") for action in actions}
    if kinds != {"cartesian_pos"}:
        got = ", ".join(sorted(kinds)) or "nothing"
        raise SessionError(f"openpi's clients get end-effector poses, and the policy gave {got}")
    poses = pose_from_wire([action["robot_command"]["pose"] for action in actions])
    for before, row in itertools.pairwise(poses):
        row[3:] = align_quat(row[3:], before[3:])
    grips = [action["target_grip"] for action in actions]
    return np.column_stack([poses, grips]).astype(np.float32)
