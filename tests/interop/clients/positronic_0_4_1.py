"""What public Positronic 0.4.1 gets of a server, as JSON; run by its own Python.

    python positronic_0_4_1.py PORT OBSERVATION.npz

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
    """The actions as they were on the wire; this client makes poses of them."""
    found = []
    for action in actions:
        pose = action["robot_command"].pose
        vector = [*pose.translation.tolist(), *pose.rotation.as_rotation_matrix.ravel().tolist()]
        command = {"type": action["robot_command"].TYPE, "pose": vector}
        found.append({**action, "robot_command": command})
    return found


def main(port: str, observation: str) -> None:
    """Do all that the client can."""
    from positronic.policy.remote import declared_stack  # type: ignore[import-not-found]
    from positronic_wire import registry, wire  # type: ignore[import-not-found]

    import positronic.offboard.client as module

    obs = load(observation)
    public: Any = module
    websocket = registry.client_wire("websocket")

    def client(path: str) -> Any:
        address = websocket.ADDRESS("127.0.0.1", int(port), path, "")
        return public.InferenceClient(websocket, address, connect_deadline=10)

    ours = client("/api/v1/session")
    ours.wait_for_server()
    session = ours.new_session()
    # What its robots run beside the server; it refuses one that declares nothing.
    stack = declared_stack(session.metadata, session.protocol_version)
    found: dict[str, Any] = {
        "meta": session.metadata,
        "protocol": int(session.protocol_version),
        "stack": type(stack).__name__,
        "first": plain(session.infer(obs)),
    }
    try:
        session.infer({"grip": obs["grip"]})
    except RuntimeError as error:
        found["error"] = str(error)
    found["second"] = plain(session.infer(obs))
    session.close()
    try:
        ours.keepalive()
    except wire.KeepaliveUnsupported:
        found["keepalive"] = "unsupported"
    try:
        client("/api/v1/session/77").new_session()
    except RuntimeError as error:
        found["unknown"] = str(error)
    other = client("/api/v1/session/10000").new_session()
    found["other"] = [other.metadata["checkpoint_id"], plain(other.infer(obs))]
    other.close()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
