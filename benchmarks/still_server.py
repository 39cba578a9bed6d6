"""Server whose model computes nothing, for ``serving.py``: what is left is the wire and the server.

python still_server.py

Prints one line of JSON when it is ready: its port, and where its packages lie.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import positronic
from positronic.offboard.models.store import ModelStore
from positronic.offboard.serving.limits import ServerOptions
from positronic.offboard.serving.process import bind, run_to_the_end
from positronic.offboard.serving.server import serve_forever

FPS = 15.0
META = {"type": "still", "action_fps": FPS}
POSE = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
ACTIONS = [
    {
        "robot_command": {"type": "cartesian_pos", "pose": POSE},
        "target_grip": 1.0,
        "timestamp": i / FPS,
    }
    for i in range(100)
]


class Session:
    """Answers with the same hundred actions."""

    meta = META

    def prepare(self, obs: Mapping[str, Any]) -> Any:
        """Take the observation as it is."""
        return obs

    def finish(self, prediction: Any) -> list[dict[str, Any]]:
        """Say the actions."""
        return ACTIONS

    def close(self) -> None:
        """There is nothing to give back."""


class Still:
    """The model, and the source that has no other."""

    nbytes = 0
    meta = META

    def new_session(self, context: Mapping[str, Any] | None = None) -> Any:
        """A robot has connected."""
        return Session()

    def predict(self, requests: Sequence[Any]) -> Sequence[Any]:
        """Compute nothing."""
        return requests

    def close(self) -> None:
        """There is nothing to give back."""


class Source:
    """Where the server finds it."""

    def ids(self) -> list[str]:
        """List what there is."""
        return ["still"]

    def resolve(self, requested: str) -> str:
        """Find the id that a client's words mean."""
        return requested

    def nbytes(self, model_id: str) -> int:
        """It has no weights."""
        return 0

    def load(self, model_id: str, say: Callable[[str], None]) -> Any:
        """Load it."""
        return Still()


def main() -> None:
    """Serve until it is ended."""
    listener = bind("127.0.0.1", 0)
    found = {"port": listener.getsockname()[1], "source": str(positronic.__file__)}
    run_to_the_end(
        serve_forever(
            ModelStore(Source(), "still", memory_bytes=1),
            listener,
            "127.0.0.1",
            lambda model: print(json.dumps(found), flush=True),
            options=ServerOptions(rate_limit=0),
        )
    )


if __name__ == "__main__":
    main()
