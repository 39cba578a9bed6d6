"""Public Positronic 0.4.1 serving a policy of a few lines; run by its own Python.

    python positronic_0_4_1_server.py PORT

Imports nothing of this project.
"""

import importlib
import sys
from typing import Any

import numpy as np


def main(port: str) -> None:
    """Serve until somebody ends the process."""
    geom: Any = importlib.import_module("positronic.geom")
    from positronic.drivers.roboarm import command  # type: ignore[import-not-found]
    from positronic.offboard.server import PolicyServer  # type: ignore[import-not-found]
    from positronic.offboard.spec import Model, PolicyDeployment  # type: ignore[import-not-found]
    from positronic.policy.codecs import (  # type: ignore[import-not-found]
        BinarizeGripInference,
        FlipGrip,
        TransformImages,
    )
    from positronic.policy.codecs.image import ResizeMode  # type: ignore[import-not-found]
    from positronic.policy.processors import (  # type: ignore[import-not-found]
        ChunkedSchedule,
        PauseOnUnavailable,
    )
    from positronic.policy.sequential import Sequential  # type: ignore[import-not-found]
    from positronic_model_server import (  # type: ignore[import-not-found]
        server_wire,
        websocket_wire,
    )

    flip = len(sys.argv) > 2

    def pose(x: float, y: float, z: float) -> Any:
        return geom.Transform3D(np.array([x, y, z]), geom.Rotation.identity)

    class Climb(Model):
        """Goes up a centimetre an action, and closes or opens as far as the grip is now."""

        def __call__(self, obs: Any, *, session_id: str) -> Any:
            x, y, z = obs["robot_state.ee_pose"][:3]
            if obs["image.wrist"].shape != (60, 80, 3):
                raise ValueError(f"an image of {obs['image.wrist'].shape}")
            return [
                {
                    "robot_command": command.CartesianPosition(
                        geom.Transform3D(
                            np.array([x, y, z + 0.01 * (i + 1)]), geom.Rotation.identity
                        )
                    ),
                    "target_grip": float(obs["grip"]) + 0.01 * i,
                }
                for i in range(5)
            ]

        def meta(self) -> dict[str, Any]:
            return {"type": "climb"}

    parts: list[Any] = [PauseOnUnavailable(), ChunkedSchedule(fps=10, horizon_sec=0.4)]
    parts += [TransformImages(80, 60, mode=ResizeMode.BOUND), BinarizeGripInference()]
    local = Sequential(*parts, *([FlipGrip()] if flip else []))
    address = server_wire.ServedHostPort("127.0.0.1", int(port))
    PolicyServer(Climb, PolicyDeployment(local)).serve([websocket_wire.WebsocketWire(address)])


if __name__ == "__main__":
    main(sys.argv[1])
