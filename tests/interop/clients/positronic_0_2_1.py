"""What public Positronic 0.2.1 gets of a server, as JSON; run by its own Python.

    python positronic_0_2_1.py PORT OBSERVATION.npz

Imports nothing of this project.
"""

import json
import sys
from typing import Any

import numpy as np


def load(path: str) -> dict[str, Any]:
    """The observation, with scalars and texts as themselves."""
    with np.load(path) as arrays:
        return {key: value if value.ndim else value.item() for key, value in arrays.items()}


def plain(actions: Any) -> list[dict[str, Any]]:
    """The actions with lists for arrays."""
    return [
        {**action, "robot_command": {**action["robot_command"], "pose": pose.tolist()}}
        for action in actions
        for pose in [action["robot_command"]["pose"]]
    ]


def main(port: str, observation: str) -> None:
    """Do all that the client can."""
    from positronic.offboard.client import InferenceClient

    obs = load(observation)
    client: Any = InferenceClient("127.0.0.1", int(port))
    found: dict[str, Any] = {"models": client.list_models()}
    session = client.new_session()
    found["meta"] = session.metadata
    found["first"] = plain(session.infer(obs))
    try:
        session.infer({"grip": obs["grip"]})
    except RuntimeError as error:
        found["error"] = str(error)
    found["second"] = plain(session.infer(obs))
    session.close()
    try:
        client.new_session("77")
    except RuntimeError as error:
        found["unknown"] = str(error)
    other = client.new_session("10000")
    found["other"] = [other.metadata["checkpoint_id"], plain(other.infer(obs))]
    other.close()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
