"""PushT and ALOHA, as LeRobot's own configs make them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.envs.configs import AlohaEnv, PushtEnv

from getiaction.errors import GetiactionError
from getiaction.gyms import AlohaGym, PushTGym, as_gym


def test_pusht_is_lerobots() -> None:
    gym, config = PushTGym(), PushtEnv()
    assert gym.gym_id == config.gym_id
    assert (
        config.gym_kwargs.items()
        <= {
            **gym.make_kwargs,
            "max_episode_steps": gym.max_episode_steps,
        }.items()
    )
    assert (gym.fps, gym.get_max_episode_steps()) == (config.fps, config.episode_length)
    assert gym.name == "PushT-v0"


def test_pushts_observations_have_the_datasets_keys() -> None:
    shapes = {}
    obs_types: Any = ("pixels_agent_pos", "environment_state_agent_pos", "pixels", "state")
    for obs_type in obs_types:
        gym = PushTGym(obs_type=obs_type)
        observation, _ = gym.reset(seed=1)
        shapes[obs_type] = {
            key: tuple(value.shape) for key, value in observation.items() if key != "task"
        }
        raw, _ = gym.make().reset(seed=1)
        if obs_type == "pixels_agent_pos":
            image = observation["observation.image"]
            assert image.dtype == torch.float32
            np.testing.assert_array_equal(
                (255 * image[0]).round().permute(1, 2, 0).numpy(), raw["pixels"]
            )
            np.testing.assert_array_equal(
                observation["observation.state"][0], raw["agent_pos"].astype(np.float32)
            )
        gym.close()
    image_and_state = {"observation.image": (1, 3, 96, 96), "observation.state": (1, 2)}
    assert shapes == {
        "pixels_agent_pos": image_and_state,
        "environment_state_agent_pos": {
            "observation.environment_state": (1, 16),
            "observation.state": (1, 2),
        },
        "pixels": {"observation.image": (1, 3, 96, 96)},
        "state": {"observation.state": (1, 5)},
    }


def test_aloha_is_lerobots() -> None:
    gym, config = AlohaGym(), AlohaEnv()
    assert gym.gym_id == config.gym_id
    assert (
        config.gym_kwargs.items()
        <= {
            **gym.make_kwargs,
            "max_episode_steps": gym.max_episode_steps,
        }.items()
    )
    assert (gym.fps, gym.get_max_episode_steps()) == (config.fps, config.episode_length)


@pytest.mark.parametrize("obs_type", ["pixels_agent_pos", "pixels"])
def test_alohas_observations_have_the_datasets_keys(obs_type: Any) -> None:
    gym = AlohaGym("AlohaTransferCube-v0", obs_type)
    observation, _ = gym.reset(seed=1)
    image = observation["observation.images.top"]
    assert image.shape == (1, 3, 480, 640)
    assert 0 < image.max() <= 1
    assert ("observation.state" in observation) == (obs_type == "pixels_agent_pos")
    if obs_type == "pixels_agent_pos":
        assert observation["observation.state"].shape == (1, 14)
    observation, reward, terminated, truncated, info = gym.step(gym.sample_action())
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, False, False, False)
    gym.close()


def test_aloha_without_rendering_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(GetiactionError, match="MUJOCO_GL=disable disables"):
        AlohaGym().make()


@pytest.mark.parametrize(("gym", "package"), [(PushTGym(), "gym_pusht"), (AlohaGym(), "gym_aloha")])
def test_a_missing_package_is_named_with_its_extra(
    gym: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gymnasium

    monkeypatch.setitem(sys.modules, package, None)
    for known in [known for known in gymnasium.registry if known.startswith(package)]:
        monkeypatch.delitem(gymnasium.registry, known)
    with pytest.raises(GetiactionError) as caught:
        gym.make()
    assert "which is not installed: pip install 'positronic-lightning[gyms]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ids_become_the_gyms_that_fit() -> None:
    assert isinstance(as_gym("gym_pusht/PushT-v0"), PushTGym)
    aloha = as_gym("gym_aloha/AlohaTransferCube-v0")
    assert isinstance(aloha, AlohaGym)
    assert aloha.gym_id == "gym_aloha/AlohaTransferCube-v0"
    gym = PushTGym()
    assert as_gym(gym) is gym


def test_environments_processes_import_no_torch() -> None:
    """Which would take each of them seconds."""
    code = "import sys, getiaction.gyms.one_episode; sys.exit('torch' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "COVERAGE_PROCESS_START"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    assert find_spec("torch")
