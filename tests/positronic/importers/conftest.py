import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from foundation.errors import StorageError
from positronic.importers import sample

type MakeFile = Callable[..., Path]

CONTROLLER: dict[str, Any] = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "impedance_mode": "fixed",
    "position_limits": None,
    "orientation_limits": None,
    "control_delta": True,
}
MODEL = """<mujoco><worldbody>
<joint name="gripper0_finger_joint1" type="slide" range="0 0.04"/>
<joint name="gripper0_finger_joint2" type="slide" range="-0.04 0"/>
</worldbody></mujoco>"""


@pytest.fixture(scope="session")
def sample_file() -> Path:
    """The real file; without a way to download it the tests that need it are skipped."""
    try:
        return sample.fetch()
    except StorageError as error:
        pytest.skip(f"the robomimic sample cannot be fetched: {error}")


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """Write a small file in the layout of robomimic; ``spoil`` changes it before it is closed."""

    def make(
        demos: int = 2,
        steps: int = 6,
        env_name: str = "Lift",
        controller: dict[str, Any] | None = None,
        env_type: int = 1,
        spoil: Callable[[h5py.File], None] | None = None,
    ) -> Path:
        path = tmp_path / "demos.hdf5"
        env_args = {
            "env_name": env_name,
            "type": env_type,
            "env_kwargs": {
                "control_freq": 20,
                "robots": ["Panda"],
                "controller_configs": CONTROLLER if controller is None else controller,
            },
        }
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps(env_args)
            for index in range(demos):
                _write_demo(data.create_group(f"demo_{index}"), index, steps)
            mask = file.create_group("mask")
            names = [f"demo_{index}".encode() for index in range(demos)]
            mask["train"], mask["valid"] = names[:-1], names[-1:]
            if spoil is not None:
                spoil(file)
        return path

    return make


def _write_demo(group: h5py.Group, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    group.attrs["model_file"] = MODEL
    group["actions"] = rng.uniform(-1, 1, (steps, 7))
    group["rewards"] = np.zeros(steps)
    group["dones"] = np.zeros(steps, np.int64)
    group["states"] = rng.normal(size=(steps, 32))
    quats = rng.normal(size=(steps + 1, 4))
    rows = {
        "robot0_joint_pos": rng.normal(size=(steps + 1, 7)),
        "robot0_joint_vel": rng.normal(size=(steps + 1, 7)),
        "robot0_eef_pos": rng.normal(size=(steps + 1, 3)),
        "robot0_eef_quat": quats / np.linalg.norm(quats, axis=1, keepdims=True),
        "robot0_gripper_qpos": np.tile([0.02, -0.02], (steps + 1, 1)),
        "object": np.tile([0.1, 0.2, 0.3, 0, 0, 0.6, 0.8, 0, 0, 0], (steps + 1, 1)),
        "agentview_image": rng.integers(0, 255, (steps + 1, 16, 16, 3), np.uint8),
        "robot0_eye_in_hand_image": rng.integers(0, 255, (steps + 1, 16, 16, 3), np.uint8),
    }
    for name, values in rows.items():
        group[f"obs/{name}"] = values[:-1]
        group[f"next_obs/{name}"] = values[1:]
