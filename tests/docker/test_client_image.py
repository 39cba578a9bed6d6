"""A robot's side: the small image, in a container of its own, drives the server's container."""

from pathlib import Path

from positronic.vendors.lerobot import codecs
from tests.docker.caller import Caller, serving
from tests.positronic.vendors.lerobot.small_policy import STEPS, make_run

# By the name of the service, as containers of one Compose project call each other.
SERVE = "docker compose run --rm --use-aliases lerobot-server --checkpoints_dir=~/checkpoints/run"
CLIENT = "docker compose run --rm -T --env=AUTH_TOKEN client python -"
PROGRAM = """
import importlib.util

import numpy as np

from foundation.errors import FoundationError
from positronic.offboard.client import InferenceClient

print([name for name in ("torch", "lerobot", "mujoco") if importlib.util.find_spec(name)])
client = InferenceClient("lerobot-server", 8000)
pose = np.array([0.4, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])
observation = {
    "robot_state.ee_pose": pose, "grip": 0.5, "object_poses": np.concatenate([pose, pose])
}
try:
    print(client.models())
    with client.new_session() as session:
        actions = session.infer(observation)
        print(len(actions), sorted(actions[0]))
except FoundationError as error:
    print(error)
"""


def test_the_client_drives_the_server(caller: Caller, images: None, tmp_path: Path) -> None:
    make_run(caller.home / "checkpoints/run", codecs.eepose_state.instantiate(), steps=(2,))
    caller.own(caller.home / "checkpoints")

    def drive(**variables: str) -> list[str]:
        command = f"{CLIENT} <<'END'\n{PROGRAM}END"
        return caller.ok(command, timeout=120, **variables).splitlines()

    with serving(caller, SERVE, tmp_path / "log", AUTH_TOKEN="secret"):
        commands = ["robot_command", "target_grip", "timestamp"]
        assert drive(AUTH_TOKEN="secret") == ["[]", "['000002']", f"{STEPS} {commands}"]
        refusal = "ws://lerobot-server:8000 refused the session (HTTP 401), %s: set AUTH_TOKEN"
        for token, why in (("guess", "not with this token"), ("", "it wants a token")):
            assert drive(AUTH_TOKEN=token)[1].startswith(refusal % why)
