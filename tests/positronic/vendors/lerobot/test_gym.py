"""The simulator seen through a codec is what a converted dataset shows."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.eval import run_episodes
from getiaction.gyms import GymnasiumGym
from positronic import simulator
from positronic.codec import Codec, ObjectPoses
from positronic.dataset import DatasetWriter, LocalDataset
from positronic.simulator.expert import make_expert
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.gym import CodecGym

# LeRobot takes long to import; one test process is enough to pay for it.
SEED, FPS = 3, 15
IMAGE = (48, 64)
CODECS: dict[str, Any] = {
    "eepose_state": {},
    "eepose_absolute": {"image_size": [32, 32]},
}


class Player:
    """Plays given actions (T, A), one after the other."""

    def __init__(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def reset(self) -> None:
        self._step = 0

    def select_action(self, observation: dict[str, Any]) -> torch.Tensor:
        self._step += 1
        return torch.from_numpy(self._actions[self._step - 1 : self._step])


def record(root: Path, codec: Codec, cameras: tuple[str, ...], name: str = "stack_cubes") -> int:
    """Record the expert, whose commands go through the codec; return the number of steps."""
    env = simulator.make(name, cameras=cameras, image_size=IMAGE)
    world: Any = env.unwrapped
    expert = make_expert(env)
    observation, _ = env.reset(seed=SEED)
    over, steps = False, 0
    with DatasetWriter(root).new_episode() as episode:
        for key, value in world.statics.items():
            episode.set_static(key, value)
        while True:
            now = steps * 10**9 // FPS
            for key, value in observation.items():
                episode.append(key, value, now)
            if over:
                break
            wanted = expert.act(observation)
            row = {"robot_commands.pose": wanted[:7], "target_grip": wanted[7]}
            action = codec.encode_action(row)
            episode.append("robot_commands.pose", action[:7].astype(np.float64), now)
            episode.append("target_grip", float(action[7]), now)
            command = codec.decode(action)
            observation, _, over, _, info = env.step(
                world.command_to_action(command["robot_command"], command["target_grip"])
            )
            steps += 1
    env.close()
    assert info["is_success"]
    return steps


@pytest.mark.parametrize("name", CODECS)
def test_observations_are_the_converted_datasets_rows(name: str, tmp_path: Path) -> None:
    from lerobot.datasets import LeRobotDataset

    codec: Codec = getattr(codecs, name)(**CODECS[name])
    gym = CodecGym(codec=name, codec_options=CODECS[name], image_size=IMAGE)
    cameras = gym.make_kwargs["cameras"]
    assert cameras == (() if name == "eepose_state" else ("image.wrist", "image.exterior"))
    steps = record(tmp_path / "raw", codec, cameras)
    convert_dataset(
        LocalDataset(tmp_path / "raw"), codec, tmp_path / "out", FPS, Options(video=False)
    )
    rows = LeRobotDataset("local", root=tmp_path / "out")
    actions = np.stack([rows[i]["action"].numpy() for i in range(steps)])
    (episode,) = run_episodes(gym, Player(actions), [SEED], return_observations=True)
    assert episode.success
    assert (episode.episode_length, episode.sum_reward) == (steps, 1.0)
    assert episode.data is not None
    seen = episode.data["observation"]
    assert {"action", *seen} == set(codec.features)
    assert len(rows) == steps + 1
    for key, values in seen.items():
        for index, value in enumerate(values):
            if key.startswith("observation.images"):
                # The recording has them as video, which loses a little.
                assert 255 * (value - rows[index][key]).abs().mean() < 4, (key, index)
                assert value.std() > 0.05
            else:
                assert torch.equal(value, rows[index][key]), (key, index)
    # The dataset itself says how to look at the world.
    told = CodecGym("stack_cubes", str(tmp_path / "out"), image_size=IMAGE)
    assert (told.codec, told.fps) == (codec, FPS)
    assert run_episodes(told, Player(actions), [SEED]) == [episode]
    told.close()


@pytest.mark.parametrize("name", ["positronic/StackCubes-v0", "pick_place"])
def test_the_expert_succeeds_through_the_codec(name: str) -> None:
    gym = CodecGym(name)
    observation, _ = gym.reset(seed=0)
    world: Any = gym.env.unwrapped
    assert observation["task"] == [world.task]
    expert, over = make_expert(world), False
    info: dict[str, Any] = {}
    while not over:
        wanted = expert.act(world._observe())
        row = {"robot_commands.pose": wanted[:7], "target_grip": wanted[7]}
        action = gym.codec.encode_action(row)
        observation, _, terminated, truncated, info = gym.step(torch.from_numpy(action)[None])
        over = terminated or truncated
    assert info["is_success"]
    assert gym.get_max_episode_steps() == simulator.EPISODE_STEPS
    gym.close()


def test_processes_of_their_own_give_the_same() -> None:
    gym = pickle.loads(pickle.dumps(CodecGym(max_episode_steps=5, command_noise=0.01)))
    actions = np.tile(np.array([0.5, 0, 0.3, 0, 1, 0, 0, 1], np.float32), (5, 1))
    here = run_episodes(gym, Player(actions), [1], return_observations=True)
    there = run_episodes(gym, Player(actions), [1], return_observations=True, async_envs=True)
    assert here == there
    for key, value in here[0].data["observation"].items():  # type: ignore[index]
        assert torch.equal(value, there[0].data["observation"][key])  # type: ignore[index]


def test_an_action_without_a_rotation_is_told_with_its_seed() -> None:
    nothing = Player(np.zeros((1, 8), np.float32))
    with pytest.raises(GetiactionError, match="of seed 7, at step 1: CodecError: the action holds"):
        run_episodes(CodecGym(), nothing, [7])


def test_the_raw_environment_is_found_by_its_id_and_needs_a_codec() -> None:
    gym = GymnasiumGym("positronic/StackCubes-v0", cameras=())
    with pytest.raises(GetiactionError, match=r"no name .*robot_state\.ee_pose.*to_observation"):
        gym.reset(seed=0)
    keys = {"robot_state.ee_pose": "observation.state", "grip": "observation.grip"}
    named = GymnasiumGym("positronic/StackCubes-v0", cameras=(), observation_keys=keys)
    observation, _ = named.reset(seed=0)
    assert observation["observation.state"].shape == (1, 7)
    assert observation["observation.grip"].shape == (1, 1)
    gym.close()
    named.close()


def test_its_id_is_found_where_nothing_has_imported_it() -> None:
    code = (
        "import sys\n"
        "from getiaction.gyms import GymnasiumGym\n"
        "assert not any(name.startswith('positronic') for name in sys.modules)\n"
        "gym = GymnasiumGym('positronic/PickPlace-v0', cameras=())\n"
        "assert gym.get_max_episode_steps() == 300\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gym_id": "stack_cube"}, r"environment 'stack_cube' \(did you mean 'stack_cubes'\?\)"),
        (
            {"codec": "eepose"},
            "codec 'eepose' is neither one of .*eepose_absolute, .* nor the path",
        ),
        ({"codec_options": {"size": 3}}, "codec 'eepose_state' has no such option: .*'size'"),
        ({"codec": ObjectPoses()}, "codec 'object_poses' has no action"),
        (
            {"codec": "eepose_absolute", "cameras": ("image.wrist",)},
            "codec 'eepose_absolute' reads image.exterior, so it does not fit stack_cubes",
        ),
        ({"control_mode": "torque"}, "StackCubes-v0 cannot be made: unknown control mode 'torque'"),
    ],
)
def test_what_does_not_fit_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GetiactionError, match=message) as caught:
        CodecGym(**options).make()
    assert "\n" not in str(caught.value)
