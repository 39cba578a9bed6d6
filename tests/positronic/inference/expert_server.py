"""Serves the scripted expert over the session protocol, and drops dead when told to.

``python -m tests.positronic.inference.expert_server DIE_AFTER [CHUNK]`` prints its port; with CHUNK
it answers with that many commands at a time.
"""

import os
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from positronic.offboard import wire
from positronic.policy import Session
from tests.positronic.inference.policies import ExpertPolicy, PlanningExpert

META = {
    "type": "expert",
    "host": "127.0.0.1",
    "action_fps": 15.0,
    "contract": {"inputs": ["robot_state.ee_pose", "grip", "object_poses"]},
}


def main(die_after: int, chunk: int = 0) -> None:
    policy = PlanningExpert(chunk=chunk) if chunk else ExpertPolicy()
    left = die_after

    def session(connection: ServerConnection) -> None:
        nonlocal left
        expert: Session = policy.new_session()
        connection.send(wire.pack({"status": "ready", "meta": META}))
        try:
            while True:
                obs = wire.unpack(connection.recv(decode=False))
                left -= 1
                if left == 0:
                    os._exit(1)
                connection.send(wire.pack({"result": expert.infer(obs)}))
        except ConnectionClosed:
            return

    with serve(session, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
