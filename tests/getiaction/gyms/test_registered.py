import pickle
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from getiaction.errors import GetiactionError
from getiaction.gyms import GymnasiumGym, as_gym
from tests.getiaction.eval.worlds import LIMIT, Walk, walk

PLUGIN = """
import gymnasium
from tests.getiaction.eval.worlds import Walk
gymnasium.register("plugged/Walk-v0", entry_point=Walk, max_episode_steps=5)
"""


def test_a_loop_of_ones_own_speaks_a_policys_language() -> None:
    gym = walk(task="go there", render_mode="rgb_array")
    observation, _ = gym.reset(seed=3)
    assert observation["observation.image"].shape == (1, 3, 33, 40)
    assert observation["observation.state"].shape == (1, 2)
    assert observation["task"] == ["go there"]
    before = observation["observation.state"]
    observation, reward, terminated, truncated, _ = gym.step(torch.ones(1, 2))
    assert (type(reward), terminated, truncated) == (float, False, False)
    # The environment's own noise is the same for both coordinates, and below 2.
    moved = (observation["observation.state"] - before)[0].tolist()
    assert moved[0] == pytest.approx(moved[1], abs=1e-6)
    assert -1 < moved[0] < 3
    gym.step(np.ones(2, np.float32))
    gym.step(gym.sample_action())
    assert gym.render().shape == (33, 40, 3)
    assert (gym.name, gym.fps, gym.get_max_episode_steps()) == ("Walk-v0", 7, LIMIT)
    gym.close()
    gym.close()
    gym.reset()
    gym.close()


def test_a_gym_is_a_description() -> None:
    gym = walk(max_episode_steps=4, rename_map={"observation.image": "observation.images.top"})
    gym.reset()
    twin = pickle.loads(pickle.dumps(gym))
    assert twin._env is None
    observation, _ = twin.reset()
    assert set(observation) == {"observation.state", "observation.images.top", "task"}
    assert twin.get_max_episode_steps() == 4
    assert isinstance(twin.make().unwrapped, Walk)
    with pytest.raises(GetiactionError, match="render_mode='rgb_array'"):
        twin.render()
    shown = twin.make(render=True)
    shown.reset()
    assert shown.render().shape == (33, 40, 3)
    gym.close()
    twin.close()


def test_raw_keys_without_a_name_are_told_and_can_be_named() -> None:
    class Odd(Walk):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Dict(
                {
                    "joints": gymnasium.spaces.Box(-1, 1, (3,)),
                    "grip": gymnasium.spaces.Box(0, 1, ()),
                    "cameras": gymnasium.spaces.Dict(
                        {"top": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)}
                    ),
                }
            )

        def _seen(self) -> dict[str, object]:
            return self.observation_space.sample()

    gymnasium.register("tests/Odd-v0", entry_point=lambda **kwargs: Odd(**kwargs))
    with pytest.raises(GetiactionError, match="no name for cameras, grip, joints .*to_obs"):
        GymnasiumGym("tests/Odd-v0").reset()
    keys = {
        "cameras/top": "observation.images.top",
        "joints": "observation.state",
        "grip": "observation.grip",
    }
    observation, _ = GymnasiumGym("tests/Odd-v0", observation_keys=keys).reset()
    shapes = {key: tuple(value.shape) for key, value in observation.items() if key != "task"}
    assert shapes == {
        "observation.images.top": (1, 3, 8, 8),
        "observation.state": (1, 3),
        "observation.grip": (1, 1),
    }
    batch = {"grip": np.zeros(4), "joints": np.zeros((4, 3)), "cameras": {}}
    some = GymnasiumGym("tests/Odd-v0", observation_keys={"grip": "observation.grip"})
    assert some.to_observation(batch)["observation.grip"].shape == (4, 1)
    with pytest.raises(GetiactionError, match="has no 'cameras/left', .* it has cameras, grip"):
        GymnasiumGym("tests/Odd-v0", observation_keys={"cameras/left": "observation.image"}).reset()


def test_an_environment_of_numbers_alone() -> None:
    observation, _ = GymnasiumGym("CartPole-v1").reset(seed=0)
    assert observation["observation.state"].shape == (1, 4)


def test_a_namespace_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugging.py").write_text(PLUGIN)
    info = tmp_path / "plugging-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugging\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gymnasium.envs]\nplugged = plugging\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    gym = GymnasiumGym("plugged/Walk-v0")
    assert gym.get_max_episode_steps() == 5
    assert isinstance(gym.make().unwrapped, Walk)


@pytest.mark.parametrize(
    ("gym_id", "message"),
    [
        ("no_such_package/It-v0", "needs the package 'no_such_package', which is not installed"),
        ("no_such_module:It-v0", "needs the package 'no_such_module', which is not installed"),
        ("CartPol-v1", "there is no environment 'CartPol-v1': .*CartPole"),
        ("tests/Wlk-v0", "there is no environment|not installed"),
        ("what is this?", "'what is this\\?' is not a valid Gymnasium id such as CartPole-v1"),
    ],
)
def test_what_does_not_exist_is_told(gym_id: str, message: str) -> None:
    with pytest.raises(GetiactionError, match=message) as caught:
        as_gym(gym_id).make()
    assert "\n" not in str(caught.value)


def test_arguments_that_make_no_sense_are_told() -> None:
    with pytest.raises(GetiactionError, match="Walk-v0 cannot be created: .*'speed'"):
        walk(speed=3).make()
    with pytest.raises(GetiactionError, match="max_episode_steps is 0"):
        walk(max_episode_steps=0)
