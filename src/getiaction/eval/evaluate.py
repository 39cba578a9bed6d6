"""Evaluate a policy: one rollout, or many with the averages of LeRobot's ``eval_policy``."""

import math
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from getiaction.errors import GetiactionError
from getiaction.eval.environments import Environments
from getiaction.eval.episode import Episode
from getiaction.eval.episodes import RenderCallback, run_episodes
from getiaction.eval.statistics import NOT_MEASURED, aggregate
from getiaction.eval.video import OUTCOMES
from getiaction.gyms import as_gym
from getiaction.gyms.randomness import undisturbed


def rollout(
    env: Any,
    policy: Any,
    *,
    seed: int | None = None,
    max_steps: int | None = None,
    return_observations: bool = False,
    render_callback: RenderCallback | None = None,
) -> dict[str, Any]:
    """Play one episode of T steps and return the data of every step.

    Args:
        env: A Gym, a Gymnasium id, or a ``gymnasium.Env``.
        policy: The policy; see :func:`getiaction.eval.run_episodes`.
        seed: Seed of the environment and of the policy's random numbers; drawn if None.
        max_steps: Steps after which the episode ends; the environment's limit if None, and 1000
            if it has none.
        return_observations: Return observations too.
        render_callback: Called with the vector environment after the reset and after each step.

    Returns:
        ``action`` (T, A), ``reward`` (T,) float64, ``success`` and ``done`` (T,) bool,
        ``episode_length``, ``sum_reward``, ``max_reward``, ``is_success``, ``seed``; ``success``
        and ``is_success`` are None if the environment reports neither success nor failure. If
        requested, ``observation``: a dict of tensors (T + 1, …), the last one after the last
        action.

    Raises:
        GetiactionError: as :func:`getiaction.eval.run_episodes`.
    """
    (episode,) = run_episodes(
        env,
        policy,
        [_random_seed() if seed is None else seed],
        max_steps=max_steps,
        return_data=True,
        return_observations=return_observations,
        render_callback=render_callback,
    )
    assert episode.data is not None
    return {
        **episode.data,
        "episode_length": episode.episode_length,
        "sum_reward": episode.sum_reward,
        "max_reward": episode.max_reward,
        "is_success": episode.success,
        "seed": episode.seed,
    }


def evaluate_policy(
    env: Any,
    policy: Any,
    n_episodes: int,
    *,
    start_seed: int | None = None,
    max_steps: int | None = None,
    num_envs: int = 1,
    async_envs: bool = False,
    batched: bool = False,
    return_episode_data: bool = False,
    videos_dir: Path | str | None = None,
    max_videos: int = 10,
    progress: bool = True,
) -> dict[str, Any]:
    """Play ``n_episodes`` and average them, as LeRobot's ``eval_policy`` does.

    The result does not depend on ``num_envs`` or ``async_envs``; with ``batched`` it does, a
    little (see :func:`getiaction.eval.run_episodes`).

    Args:
        env: A Gym, a Gymnasium id, or a ``gymnasium.Env``.
        policy: The policy; see :func:`getiaction.eval.run_episodes`.
        n_episodes: Number of episodes.
        start_seed: Seed of the first episode; the others are consecutive. Drawn if None, and
            returned in the results.
        max_steps: Steps after which an episode ends.
        num_envs: Number of parallel environments.
        async_envs: Run each in its own process.
        batched: Infer actions of all of them at once.
        return_episode_data: Add ``episodes``: data of every step, in LeRobot's layout.
        videos_dir: Directory for videos, ``seed_<seed>_<outcome>.mp4``.
        max_videos: Maximum number of videos, of the first episodes.
        progress: Show a progress bar on a terminal, else a line per episode.

    Returns:
        ``per_episode``: a list of dicts with ``episode_ix`` (also as ``episode_idx``),
        ``sum_reward``, ``max_reward``, ``success`` (None if the environment reports neither success
        nor failure), ``episode_length``, ``seed``.
        ``aggregated``: the values of :func:`aggregate`, ``eval_s`` and ``eval_ep_s`` (wall-clock
        seconds, and those per episode). With ``return_episode_data`` ``episodes``: tensors over
        the frames of all episodes, T + 1 for each, the last of them repeating all but the
        observation; without ``next.success`` if it was not measured in an episode. With
        ``videos_dir`` ``video_paths``.

    Raises:
        GetiactionError: as :func:`getiaction.eval.run_episodes`.
    """
    if n_episodes < 1:
        raise GetiactionError(f"n_episodes is {n_episodes}; expected 1 or more")
    began = time.perf_counter()
    first = _random_seed() if start_seed is None else start_seed
    seeds = range(first, first + n_episodes)
    recorded = max_videos if videos_dir is not None else 0
    episodes: list[Episode] = []
    report = _Report(n_episodes, shown=progress)
    wide = min(num_envs, n_episodes)
    with (
        report,
        undisturbed(),
        Environments(as_gym(env), wide, async_envs=async_envs, render=recorded > 0) as envs,
    ):
        fps = envs.fps
        for at in range(0, n_episodes, wide):
            batch = run_episodes(
                envs,
                policy,
                seeds[at : at + wide],
                max_steps=max_steps,
                batched=batched,
                return_observations=return_episode_data,
                videos_dir=videos_dir,
                max_videos=max(0, recorded - at),
            )
            for episode in batch:
                episodes.append(episode)
                report.add(episode)
    elapsed = time.perf_counter() - began
    result: dict[str, Any] = {
        "per_episode": [_row(index, episode) for index, episode in enumerate(episodes)],
        "aggregated": {
            **aggregate(episodes),
            "eval_s": elapsed,
            "eval_ep_s": elapsed / n_episodes,
        },
    }
    if return_episode_data:
        result["episodes"] = _frames(episodes, fps)
    if videos_dir is not None:
        result["video_paths"] = [str(one.video) for one in episodes if one.video is not None]
    return result


def _random_seed() -> int:
    # Not from the global random streams, which must not change.
    return secrets.randbelow(2**31)


def _row(index: int, episode: Episode) -> dict[str, Any]:
    return {
        "episode_ix": index,
        "episode_idx": index,
        "sum_reward": episode.sum_reward,
        "max_reward": episode.max_reward,
        "success": episode.success,
        "episode_length": episode.episode_length,
        "seed": episode.seed,
    }


def _frames(episodes: list[Episode], fps: float) -> dict[str, torch.Tensor]:
    """All steps of all episodes, concatenated, with the keys of LeRobot's ``eval_policy``."""
    parts: list[dict[str, torch.Tensor]] = []
    for index, episode in enumerate(episodes):
        data, steps = episode.data, torch.arange(episode.episode_length)
        assert data is not None
        part = {
            "action": data["action"],
            "episode_index": torch.full_like(steps, index),
            "frame_index": steps,
            "timestamp": steps / fps,
            "next.done": data["done"],
            "next.reward": data["reward"].to(torch.float32),
        }
        if all(one.success is not None for one in episodes):
            part["next.success"] = data["success"]
        # The frame after the last action repeats its values.
        part = {key: torch.cat([value, value[-1:]]) for key, value in part.items()}
        parts.append(part | data["observation"])
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return joined | {"index": torch.arange(len(joined["action"]))}


class _Report:
    """Progress bar on a terminal, else a line per episode."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total = total
        self._shown = shown
        self._bar: Any = None
        self._done = self._successes = 0
        self._measured = False

    def __enter__(self) -> "_Report":
        if self._shown and sys.stderr.isatty():
            self._bar = tqdm(
                total=self._total, desc="evaluating", unit="episode", dynamic_ncols=True
            )
        return self

    def add(self, episode: Episode) -> None:
        self._done += 1
        self._successes += bool(episode.success)
        self._measured = self._measured or episode.success is not None
        if self._bar is not None:
            so_far = f"{self._successes}/{self._done} succeeded"
            self._bar.set_postfix_str(so_far if self._measured else NOT_MEASURED, refresh=False)
            self._bar.update()
        elif self._shown:
            outcome = OUTCOMES[episode.success].replace("_", " ")
            so_far = f"{self._successes} succeeded" if self._measured else NOT_MEASURED
            print(
                f"{self._done:{1 + int(math.log10(self._total))}}/{self._total}  "
                f"seed {episode.seed}  {outcome}  {episode.episode_length} steps  "
                f"reward {episode.sum_reward:.3f}  {so_far}",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(self, *unused: object) -> None:
        if self._bar is not None:
            self._bar.close()
