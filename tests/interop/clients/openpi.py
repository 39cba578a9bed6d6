"""What openpi's client gets of a server, as JSON; run by its own Python.

    python openpi.py PORT OBSERVATION.npz [API_KEY]

Imports nothing of this project.
"""

import json
import sys
from typing import Any

import numpy as np


def main(port: str, observation: str, key: "str | None" = None) -> None:
    """Ask by itself, through openpi's broker of chunks, and with nonsense."""
    from openpi_client.action_chunk_broker import (  # type: ignore[import-not-found]
        ActionChunkBroker,
    )
    from openpi_client.websocket_client_policy import (  # type: ignore[import-not-found]
        WebsocketClientPolicy,
    )

    with np.load(observation) as arrays:
        obs = {name: value if value.ndim else value.item() for name, value in arrays.items()}
    obs["prompt"] = obs.pop("task")
    policy = WebsocketClientPolicy("127.0.0.1", int(port), api_key=key)
    found: dict[str, Any] = {"metadata": policy.get_server_metadata()}
    reply = policy.infer(obs)
    found["actions"], found["dtype"] = reply["actions"].tolist(), str(reply["actions"].dtype)
    found["server_timing"] = reply["server_timing"]
    broker = ActionChunkBroker(policy, action_horizon=len(reply["actions"]))
    steps = [broker.infer(obs)["actions"].tolist() for _ in range(len(reply["actions"]) + 1)]
    found["steps"] = steps
    try:
        policy.infer({"grip": obs["grip"]})
    except RuntimeError as error:
        found["error"] = str(error)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
