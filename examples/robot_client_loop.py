"""Control loop of a robot with a policy on a server: observe, ask, act, 15 times a second.

It needs no PyTorch: ``pip install .`` brings what is imported here. With a server running
(``python examples/serve_another_policy.py`` is one)::

    python examples/robot_client_loop.py --url=ws://localhost:8001
"""

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from positronic.offboard.client import RemotePolicy
from positronic.policy import AsynchronousPlayer, measured

FPS = 15


class Robot:
    """Stands in for your robot's driver; it covers half of the way to its target in a step."""

    def __init__(self) -> None:
        self.pose = np.array([0.3, -0.2, 0.5, 0.0, 1.0, 0.0, 0.0])  # x y z, quaternion wxyz
        self.grip = 0.0  # 1 is open
        self.cube = np.array([0.5, 0.1, 0.02, 1.0, 0.0, 0.0, 0.0])

    def observe(self) -> dict[str, Any]:
        """The signals that the policy was trained on, by their names in the recordings."""
        return {
            "robot_state.ee_pose": self.pose.copy(),
            "grip": self.grip,
            "object_poses": self.cube.copy(),
        }

    def act(self, command: Mapping[str, Any], grip: float) -> None:
        """Go towards a target; this robot cannot turn."""
        if command["type"] != "cartesian_pos":
            raise ValueError(f"this robot does not understand {command['type']}")
        # A position, and a rotation matrix row by row; positronic.geom makes a quaternion of it.
        position, _ = np.split(np.asarray(command["pose"]), [3])
        self.pose[:3] += 0.5 * (position - self.pose[:3])
        self.grip = grip

    def stop(self) -> None:
        """Whatever makes a robot safe when nobody controls it any more."""


def run(robot: Robot, url: str, seconds: float) -> AsynchronousPlayer:
    """Let the policy at ``url`` control the robot for so many seconds."""
    policy = RemotePolicy(url=url)  # url="wss://...", token="..." where the server wants one
    with policy.new_session({"task": "Hold the gripper above the cube"}) as session:
        # It plays the chunk of actions that it has, and asks for the next one in time.
        player = AsynchronousPlayer(session, delay=measured)
        try:
            began = time.monotonic()
            for step in range(round(seconds * FPS)):
                action = player.action(robot.observe(), time.monotonic() - began)
                robot.act(action["robot_command"], action["target_grip"])
                # Until the next step is due, not for so long: delays must not add up.
                time.sleep(max(0.0, began + (step + 1) / FPS - time.monotonic()))
        finally:
            # Also where the server is gone, which `action` raises as a SessionError.
            robot.stop()
            player.close()
    return player


def main() -> None:
    """Connect, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:8001")
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    robot = Robot()
    player = run(robot, args.url, args.seconds)
    print(f"{player.inferences} chunks, {player.starved} steps without an action in time")
    print(f"the gripper is at {robot.pose[:3].round(3).tolist()}, grip {robot.grip}")


if __name__ == "__main__":
    main()
