import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from getiaction.errors import GetiactionError
from getiaction.eval import Environments, Episode, evaluate_policy, run_episodes
from tests.getiaction.eval.policies import Noisy, Still
from tests.getiaction.eval.worlds import LIMIT, Walk, walk

SEEDS = range(20, 26)


def alone(seed: int, limit: int = LIMIT) -> tuple[float, float, bool | None, int]:
    """What an episode of `Still` comes to, by hand."""
    env = Walk()
    env.reset(seed=seed)
    rewards: list[float] = []
    successes: list[bool] = []
    over = False
    while not over and len(rewards) < limit:
        _, reward, over, _, info = env.step(np.zeros(2))
        rewards.append(reward)
        successes.append(info["is_success"])
    return sum(rewards), max(rewards), any(successes), len(rewards)


def told(episode: Episode) -> tuple[float, float, bool | None, int]:
    return episode.sum_reward, episode.max_reward, episode.success, episode.episode_length


def same(a: list[Episode], b: list[Episode]) -> bool:
    if a != b:
        return False
    for one, other in zip(a, b, strict=True):
        assert one.data is not None
        assert other.data is not None
        if not torch.equal(one.data["action"], other.data["action"]):
            return False
    return True


def test_nothing_after_the_end_counts() -> None:
    episodes = run_episodes(walk(), Still(), SEEDS)
    lengths = {episode.episode_length for episode in episodes}
    assert len(lengths) > 2
    for seed, episode in zip(SEEDS, episodes, strict=True):
        assert episode.seed == seed
        total, best, success, length = alone(seed)
        assert told(episode)[1:] == (best, success, length)
        assert episode.sum_reward == pytest.approx(total, abs=1e-12)
        # All rewards are negative: a masked 0 would be the largest.
        assert episode.max_reward < 0
    assert {episode.success for episode in episodes} == {True, False}


def test_a_step_limit_ends_episodes() -> None:
    episodes = run_episodes(walk(endless=True), Still(), SEEDS)
    assert {episode.episode_length for episode in episodes} == {LIMIT}
    short = run_episodes(walk(), Still(), SEEDS, max_steps=2)
    assert [told(episode)[1:] for episode in short] == [alone(seed, 2)[1:] for seed in SEEDS]
    longer = run_episodes(walk(endless=True, max_episode_steps=20), Still(), [1])
    assert longer[0].episode_length == 20


@pytest.mark.parametrize("async_envs", [False, True])
def test_the_same_whatever_is_beside_it(async_envs: bool) -> None:
    # Processes take a second each to start.
    seeds = SEEDS[:3] if async_envs else SEEDS
    expected = [run_episodes(walk(), Noisy(), [seed], return_data=True)[0] for seed in seeds]
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    with Environments(walk(), len(seeds), async_envs=async_envs) as envs:
        assert same(run_episodes(envs, Noisy(), seeds, return_data=True), expected)
        # An environment that has stood idle or has played before is as good as a new one.
        again = run_episodes(envs, Noisy(), seeds[:1], return_data=True)
        again += run_episodes(envs, Noisy(), seeds[1:], return_data=True)
    assert same(again, expected)
    other = run_episodes(walk(), Noisy(), [seed + 100 for seed in seeds], return_data=True)
    assert not same(other, expected)


def test_the_global_random_streams_stay_where_they_are() -> None:
    def streams() -> list[Any]:
        numpy: Any = np.random.get_state()
        return [random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()]

    before = streams()
    run_episodes(walk(), Noisy(), SEEDS)
    with pytest.raises(GetiactionError):
        run_episodes(walk(fails_with=21, fails_at=2), Noisy(), SEEDS)
    evaluate_policy(walk(), Noisy(), 2, progress=False)
    assert streams() == before


def test_one_policy_for_all_at_once() -> None:
    sizes = []

    class Watched(Still):
        def select_action(self, observation: dict[str, Any]) -> Tensor:
            sizes.append(len(observation["observation.state"]))
            return super().select_action(observation)

    together = run_episodes(walk(), Watched(), SEEDS, batched=True)
    assert set(sizes) == {len(SEEDS)}
    assert together == run_episodes(walk(), Watched(), SEEDS)


def test_what_happened_is_kept() -> None:
    for batched in (False, True):
        episodes = run_episodes(walk(), Noisy(), SEEDS, return_observations=True, batched=batched)
        for episode in episodes:
            data, length = episode.data, episode.episode_length
            assert data is not None
            assert data["action"].shape == (length, 2)
            assert data["reward"].sum().item() == episode.sum_reward
            assert data["done"].tolist() == [False] * (length - 1) + [True]
            assert bool(data["success"].any()) == episode.success
            assert data["observation"]["observation.state"].shape == (length + 1, 2)
            image = data["observation"]["observation.image"]
            assert image.shape == (length + 1, 3, 33, 40)
            # The picture tells the step: none is missing, the last one is what came at the end.
            assert (255 * image[:, 0, 0, 0]).round().tolist() == [20 * i for i in range(length + 1)]


def test_the_policys_modes_are_as_before() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.free = nn.Linear(2, 2).eval(), nn.Dropout()
            self.seen: list[bool] = []

        def session(self) -> "Module":
            return self

        def reset(self) -> None:
            pass

        def select_action(self, observation: dict[str, Any]) -> Tensor:
            self.seen += [module.training for module in self.modules()]
            self.seen.append(torch.is_grad_enabled())
            out: Tensor = self.frozen(observation["observation.state"])
            return out

    policy = Module()
    run_episodes(walk(), policy, [1])
    assert policy.seen
    assert not any(policy.seen)
    assert (policy.training, policy.frozen.training, policy.free.training) == (True, False, True)


@pytest.mark.parametrize("async_envs", [False, True])
@pytest.mark.parametrize("step", [0, 2])
def test_an_environment_that_raises_is_named_and_all_are_closed(
    tmp_path: Path, async_envs: bool, step: int
) -> None:
    log = tmp_path / "log"
    gym = walk(fails_with=21, fails_at=step, log=str(log))
    seeds = SEEDS[:2]
    when = "at step 2" if step else "at its reset"
    with pytest.raises(
        GetiactionError,
        match=rf"^Walk-v0 failed in the episode of seed 21, {when}: ValueError: the {step}th step",
    ) as caught:
        run_episodes(gym, Still(), seeds, async_envs=async_envs)
    assert "\n" not in str(caught.value)
    assert "_may_fail" in "".join(caught.value.__notes__)
    # One more where processes own them: Gymnasium opens one to look at its spaces.
    assert log.read_text().count("closed") == len(seeds) + async_envs
    assert multiprocessing.active_children() == []


def test_a_policy_that_raises_closes_all(tmp_path: Path) -> None:
    class Broken(Still):
        def select_action(self, observation: dict[str, Any]) -> Tensor:
            raise ZeroDivisionError

    log = tmp_path / "log"
    with pytest.raises(ZeroDivisionError):
        run_episodes(walk(log=str(log)), Broken(), SEEDS)
    assert log.read_text().count("closed") == len(SEEDS)


def test_ctrl_c_ends_the_processes() -> None:
    """While they are in the middle of a step that takes a minute."""

    class Impatient(Still):
        def select_action(self, observation: dict[str, Any]) -> Tensor:
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            return super().select_action(observation)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_episodes(walk(sleeps_at=1), Impatient(), [1], async_envs=True)
    assert time.monotonic() - began < 30
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_a_terminals_signals_are_the_owners_business(signum: signal.Signals) -> None:
    """They reach every process of the terminal; one that died of them could not be closed."""
    with Environments(walk(), 1, async_envs=True) as envs:
        os.kill(envs.vector.processes[0].pid, signum)
        assert run_episodes(envs, Still(), [1]) == run_episodes(walk(), Still(), [1])


def test_a_dead_process_is_told() -> None:
    with Environments(walk(), 1, async_envs=True) as envs:
        envs.vector.processes[0].kill()
        envs.vector.processes[0].join(60)
        with pytest.raises(GetiactionError, match="a process with an environment of Walk-v0 has d"):
            run_episodes(envs, Still(), [1])
    assert multiprocessing.active_children() == []


def test_an_open_environment_is_used_and_left_open(tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = gymnasium.make("tests/Walk-v0", log=str(log))
    episodes = run_episodes(env, Still(), [20]) + run_episodes(env, Still(), [21])
    assert episodes == run_episodes(walk(), Still(), [20, 21])
    assert not log.exists()
    with pytest.raises(GetiactionError, match="Walk-v0 is one open environment"):
        run_episodes(env, Still(), [20, 21])
    with pytest.raises(GetiactionError, match="render_mode='rgb_array'"):
        run_episodes(env, Still(), [20], videos_dir=tmp_path)
    env.close()
    assert log.read_text() == "closed\n"


def test_actions_that_do_not_fit_are_refused() -> None:
    class Wide(Still):
        def select_action(self, observation: dict[str, Any]) -> Tensor:
            return torch.zeros(1, 3)

    with pytest.raises(GetiactionError, match=r"shape \(3,\), but Walk-v0 takes \(2,\)"):
        run_episodes(walk(), Wide(), [1])


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(GetiactionError, match="max_steps is 0"):
        run_episodes(walk(), Still(), [1], max_steps=0)
    with Environments(walk(), 1) as envs, pytest.raises(GetiactionError, match="2 seeds"):
        run_episodes(envs, Still(), [1, 2])
    with pytest.raises(GetiactionError, match="num_envs is 0"):
        Environments(walk(), 0)
    assert run_episodes(walk(), Still(), []) == []


@pytest.mark.parametrize("async_envs", [False, True])
def test_videos_show_every_moment(tmp_path: Path, async_envs: bool) -> None:
    import av

    seeds = SEEDS[:2] if async_envs else SEEDS
    filmed = len(seeds) - 1
    episodes = run_episodes(
        walk(),
        Still(),
        seeds,
        videos_dir=tmp_path / "new",
        max_videos=filmed,
        async_envs=async_envs,
    )
    assert [episode.video is not None for episode in episodes] == [True] * filmed + [False]
    for episode in episodes[:filmed]:
        outcome = "success" if episode.success else "failure"
        assert episode.video == tmp_path / "new" / f"seed_{episode.seed}_{outcome}.mp4"
        with av.open(str(episode.video)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == 7
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(frames) == episode.episode_length + 1
        # An even height, as H.264 wants it.
        assert frames[0].shape == (34, 40, 3)
        brightness = [frame.mean() for frame in frames]
        np.testing.assert_allclose(brightness, [20 * i for i in range(len(frames))], atol=3)
    assert len(list((tmp_path / "new").iterdir())) == filmed


def test_a_video_of_half_an_episode_is_not_left_behind(tmp_path: Path) -> None:
    # Long enough for the encoder to have written something.
    gym = walk(endless=True, max_episode_steps=90, fails_with=20, fails_at=80)
    with pytest.raises(GetiactionError, match="seed 20, at step 80"):
        run_episodes(gym, Still(), [20], videos_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
