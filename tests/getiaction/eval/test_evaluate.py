import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from getiaction.errors import GetiactionError
from getiaction.eval import (
    Episode,
    aggregate,
    evaluate_policy,
    rollout,
    run_episodes,
    wilson_interval,
)
from getiaction.gyms import GymnasiumGym
from getiaction.gyms.success import NAMES
from tests.getiaction.eval.policies import Noisy, Still, small_act
from tests.getiaction.eval.worlds import LIMIT, walk

ID = "tests.getiaction.eval.worlds:tests/Walk-v0"


def clocks_apart(result: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    aggregated = {k: v for k, v in result["aggregated"].items() if not k.startswith("eval_")}
    return result["per_episode"], aggregated


def test_results_and_their_averages() -> None:
    result = evaluate_policy(walk(), Still(), 6, start_seed=20, progress=False)
    episodes = run_episodes(walk(), Still(), range(20, 26))
    for index, (row, episode) in enumerate(zip(result["per_episode"], episodes, strict=True)):
        assert row == {
            "episode_ix": index,
            "episode_idx": index,
            "sum_reward": episode.sum_reward,
            "max_reward": episode.max_reward,
            "success": episode.success,
            "episode_length": episode.episode_length,
            "seed": 20 + index,
        }
    aggregated = result["aggregated"]
    assert aggregated["avg_sum_reward"] == np.mean([e.sum_reward for e in episodes])
    assert aggregated["avg_max_reward"] == np.mean([e.max_reward for e in episodes])
    assert aggregated["avg_episode_length"] == np.mean([e.episode_length for e in episodes])
    successes = sum(e.success is True for e in episodes)
    assert 0 < successes < 6
    assert aggregated["pc_success"] == pytest.approx(100 * successes / 6)
    assert aggregated["success_rate"] == pytest.approx(successes / 6)
    assert (aggregated["n_episodes"], aggregated["n_successes"]) == (6, successes)
    bounds = aggregated["success_rate_low"], aggregated["success_rate_high"]
    assert bounds == wilson_interval(successes, 6)
    assert aggregated["eval_s"] == pytest.approx(6 * aggregated["eval_ep_s"])
    assert set(result) == {"per_episode", "aggregated"}
    assert aggregate([])["n_episodes"] == 0


@pytest.mark.parametrize("num_envs", [2, 4, 9])
def test_the_same_for_any_number_of_environments(num_envs: int, tmp_path: Path) -> None:
    one = evaluate_policy(
        walk(), Noisy(), 6, start_seed=20, progress=False, return_episode_data=True
    )
    several = evaluate_policy(
        ID,
        Noisy(),
        6,
        start_seed=20,
        num_envs=num_envs,
        progress=False,
        return_episode_data=True,
        videos_dir=tmp_path,
        max_videos=3,
    )
    assert clocks_apart(several) == clocks_apart(one)
    for key, value in one["episodes"].items():
        assert torch.equal(several["episodes"][key], value), key
    frames = sum(row["episode_length"] + 1 for row in one["per_episode"])
    assert one["episodes"]["index"].tolist() == list(range(frames))
    names = [
        f"seed_{row['seed']}_{'success' if row['success'] else 'failure'}.mp4"
        for row in one["per_episode"][:3]
    ]
    assert several["video_paths"] == [str(tmp_path / name) for name in names]


def test_seeds_are_drawn_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    result = evaluate_policy(walk(), Noisy(), 2)
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (row["seed"] for row in result["per_episode"])
    assert second == first + 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"2/2  seed {second}  ")
    again = evaluate_policy(walk(), Noisy(), 2, start_seed=first, progress=False)
    assert clocks_apart(again) == clocks_apart(result)
    other = evaluate_policy(walk(), Noisy(), 2, progress=False)
    assert other["per_episode"][0]["seed"] != first
    assert capsys.readouterr().err == ""


def test_a_real_policys_sessions_do_not_meet() -> None:
    """ACT plays chunks of actions from a queue: whoever shares it plays others' actions."""
    policy = small_act(0, 1, state=(2,), action=(2,), image=(33, 40, 3))
    queue = policy.lerobot_policy._action_queue
    alone = [run_episodes(walk(), policy, [seed])[0] for seed in range(20, 24)]
    assert run_episodes(walk(), policy, range(20, 24)) == alone
    assert policy.lerobot_policy._action_queue is queue
    together = run_episodes(walk(), policy, range(20, 24), batched=True)
    for one, other in zip(alone, together, strict=True):
        assert one.episode_length == other.episode_length
        assert other.sum_reward == pytest.approx(one.sum_reward, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_success_is_read_by_every_name(name: str) -> None:
    expected = evaluate_policy(walk(), Still(), 6, start_seed=20, progress=False)
    found = evaluate_policy(walk(tells=name), Still(), 6, start_seed=20, num_envs=4, progress=False)
    assert clocks_apart(found) == clocks_apart(expected)
    assert found["aggregated"]["n_successes"] > 0


@pytest.mark.parametrize("num_envs", [1, 4])
def test_success_that_nobody_measured_is_none(
    num_envs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate_policy(
        walk(tells=None),
        Still(),
        6,
        start_seed=20,
        num_envs=num_envs,
        return_episode_data=True,
        videos_dir=tmp_path,
        max_videos=1,
    )
    told = evaluate_policy(walk(), Still(), 6, start_seed=20, progress=False)
    assert [row["success"] for row in result["per_episode"]] == [None] * 6
    aggregated = result["aggregated"]
    of_success = ("pc_success", "n_successes", "success_rate")
    for key in (*of_success, "success_rate_low", "success_rate_high"):
        assert aggregated[key] is None
    for key in ("avg_sum_reward", "avg_max_reward", "avg_episode_length", "n_episodes"):
        assert aggregated[key] == told["aggregated"][key]
    assert "next.success" not in result["episodes"]
    assert result["video_paths"] == [str(tmp_path / "seed_20_not_measured.mp4")]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert all(line.endswith("success not measured") for line in lines)
    assert "failure" not in "".join(lines)
    one = rollout(walk(tells=None), Still(), seed=20)
    assert (one["is_success"], one["success"]) == (None, None)


def test_where_some_episodes_tell_success_the_others_failed() -> None:
    """An environment may tell it only once it is there, or only at its own end."""
    told = [
        Episode(seed=seed, sum_reward=0.0, max_reward=0.0, success=success, episode_length=1)
        for seed, success in enumerate((True, None, None, False))
    ]
    summary = aggregate(told)
    assert (summary["n_successes"], summary["success_rate"]) == (1, 0.25)
    assert (summary["success_rate_low"], summary["success_rate_high"]) == wilson_interval(1, 4)


def test_one_rollout() -> None:
    calls: list[Any] = []
    result = rollout(
        walk(), Noisy(), seed=21, return_observations=True, render_callback=calls.append
    )
    (episode,) = run_episodes(walk(), Noisy(), [21], return_data=True)
    assert episode.data is not None
    assert torch.equal(result["action"], episode.data["action"])
    assert (result["sum_reward"], result["max_reward"]) == (episode.sum_reward, episode.max_reward)
    assert (result["is_success"], result["seed"]) == (episode.success, 21)
    assert result["episode_length"] == len(result["reward"]) == len(result["success"])
    assert len(result["observation"]["observation.state"]) == episode.episode_length + 1
    assert len(calls) == episode.episode_length + 1
    assert calls[0].num_envs == 1
    drawn = rollout(ID, Noisy(), max_steps=2)
    assert (
        drawn["reward"].tolist() == rollout(ID, Noisy(), seed=drawn["seed"])["reward"].tolist()[:2]
    )
    assert "observation" not in drawn


def test_without_a_limit_of_its_own_an_episode_ends() -> None:
    class Endless(gymnasium.Env[Any, Any]):
        action_space = gymnasium.spaces.Box(-1, 1, (2,))
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(2, np.float32), 0.0, False, False, {}

    assert rollout(Endless(), Still(), seed=0)["episode_length"] == 1000
    assert (
        evaluate_policy(walk(endless=True), Still(), 1, progress=False)["per_episode"][0][
            "episode_length"
        ]
        == LIMIT
    )


def test_a_policy_trained_on_another_camera_is_refused() -> None:
    policy = small_act(0, 1, state=(2,), action=(2,), **{"images.top": (33, 40, 3)})
    expected = (
        "the policy was trained on observation.images.top, which Walk-v0 does not have (it has "
        "observation.image, observation.state); if only the name differs, create the "
        "gym with rename_map={'observation.image': 'observation.images.top'}"
    )
    with pytest.raises(GetiactionError) as caught:
        rollout(walk(), policy, seed=1)
    assert str(caught.value) == expected
    mended = walk(rename_map={"observation.image": "observation.images.top"})
    assert rollout(mended, policy, seed=1)["episode_length"] > 0


def test_a_policy_trained_on_another_state_is_refused() -> None:
    policy = small_act(0, 1, state=(3,), action=(2,), image=(33, 40, 3))
    with pytest.raises(GetiactionError, match=r"observation\.state of shape \(3,\), Walk-v0 has"):
        rollout(walk(), policy, seed=1)


def test_names_that_the_policys_own_processor_changes_are_right() -> None:
    class Renaming(Still):
        config = SimpleNamespace(
            input_features={"observation.images.top": SimpleNamespace(shape=(3, 33, 40))}
        )
        preprocessor = SimpleNamespace(
            steps=[SimpleNamespace(rename_map={"observation.image": "observation.images.top"})]
        )

    assert rollout(walk(), Renaming(), seed=1)["episode_length"] > 0


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(GetiactionError, match="n_episodes is 0"):
        evaluate_policy(walk(), Still(), 0)
    with pytest.raises(GetiactionError, match="list is not an environment"):
        evaluate_policy([], Still(), 1)

    class Flat(Still):
        def select_action(self, observation: dict[str, Any]) -> Tensor:
            return torch.tensor(0.0)

    with pytest.raises(GetiactionError, match="batch dimension"):
        rollout(walk(), Flat())
    assert aggregate([])["success_rate"] is None
    assert math.isnan(aggregate([])["avg_sum_reward"])


def test_the_task_is_told() -> None:
    heard = []

    class Listening(Still):
        def select_action(self, observation: dict[str, Any]) -> Tensor:
            heard.extend(observation["task"])
            return super().select_action(observation)

    rollout(walk(), Listening(), max_steps=1)
    rollout(GymnasiumGym(ID, task="go there"), Listening(), max_steps=1)
    assert heard == ["", "go there"]
