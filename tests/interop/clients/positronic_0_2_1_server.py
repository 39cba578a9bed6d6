"""Public Positronic 0.2.1 serving a policy of a few lines; run by its own Python.

    python positronic_0_2_1_server.py PORT

Imports nothing of this project.
"""

import asyncio
import sys
from typing import Any

import numpy as np

HOME = [0.4, 0.0, 0.4, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0]


class Climb:
    """Goes up from where the arm is, a centimetre each tenth of a second."""

    meta: dict[str, Any] = {"type": "climb", "action_fps": 10.0}  # noqa: RUF012

    def reset(self, context: Any = None) -> None:
        """A new session begins."""

    def select_action(self, obs: Any) -> list[dict[str, Any]]:
        """Five waypoints."""
        x, y, z = obs["robot_state.ee_pose"][:3]
        return [
            {
                "robot_command": {
                    "type": "cartesian_pos",
                    "pose": np.array([x, y, z + 0.01 * (i + 1), *HOME[3:]]),
                },
                "target_grip": 1.0,
                "timestamp": i / 10,
            }
            for i in range(5)
        ]


def main(port: str) -> None:
    """Serve until somebody ends the process."""
    from positronic.offboard.basic_server import (  # type: ignore[import-not-found]
        InferenceServer,
    )

    registry = {"climb": Climb, "again": Climb}
    asyncio.run(InferenceServer(registry, "127.0.0.1", int(port)).serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
