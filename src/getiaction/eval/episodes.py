"""Rollouts: episodes of a policy in environments side by side, each as if it were alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from getiaction.errors import GetiactionError
from getiaction.eval.actors import Actors
from getiaction.eval.environments import Environments
from getiaction.eval.randomness import devices_of, undisturbed
from getiaction.eval.video import EpisodeVideo
from getiaction.gyms import as_gym

RenderCallback = Callable[[Any], None]


@dataclass(frozen=True)
class Episode:
    """How one episode went.

    Args:
        seed: What the environment was reset with.
        sum_reward: Sum of the rewards, in float64.
        max_reward: The largest reward.
        success: Whether the environment told ``is_success`` at any step.
        episode_length: Steps.
        data: With ``return_data``: ``action`` (T, A) float32, ``reward`` (T,) float64, ``success``
            and ``done`` (T,) bool; with ``return_observations`` also ``observation``, a dict of
            tensors (T + 1, …).
        video: The file that shows it, if one was asked for.
    """

    seed: int
    sum_reward: float
    max_reward: float
    success: bool
    episode_length: int
    data: dict[str, Any] | None = field(default=None, compare=False)
    video: Path | None = field(default=None, compare=False)


@torch.no_grad()
def run_episodes(
    gym: Any,
    policy: Any,
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    async_envs: bool = False,
    batched: bool = False,
    return_data: bool = False,
    return_observations: bool = False,
    videos_dir: Path | str | None = None,
    max_videos: int | None = None,
    render_callback: RenderCallback | None = None,
) -> list[Episode]:
    """Play one episode for each seed, all at the same time.

    Each episode has a ``policy.session()`` and random streams of its own, seeded with its seed, so
    that it goes the same way, to the last bit, whatever is played beside it. The global random
    streams are as before afterwards, and so is the policy's training mode.

    Args:
        gym: A Gym, a Gymnasium id, a ``gymnasium.Env``, or open :class:`Environments`, at least as
            many as there are seeds.
        policy: A :class:`getiaction.policies.base.Policy`, or anything with ``reset`` and
            ``select_action``; what has no ``session`` is copied for each episode.
        seeds: One for each episode.
        max_steps: Steps after which an episode ends; the gym's limit if None, and 1000 if it has
            none.
        async_envs: Let each environment live in a process of its own.
        batched: Ask one policy for all episodes at once, as LeRobot does: faster on a GPU, where
            many small calls cost more than a large one. A matrix product over more rows may round
            otherwise (about 1e-6 of an action), and a policy that draws random numbers draws other
            ones, so results are then comparable only for the same seeds in the same batches.
        return_data: Keep actions, rewards, successes.
        return_observations: Keep observations too.
        videos_dir: Where to write a video of each episode, ``seed_<seed>_<outcome>.mp4``.
        max_videos: Write videos of the first so many only.
        render_callback: Called with the vector environment after the reset and after each step.

    Raises:
        GetiactionError: the environment cannot be made or raises (the message names the seed), or
            does not give what the policy was trained on, or takes other actions.
    """
    if not seeds:
        return []
    if max_steps is not None and max_steps < 1:
        raise GetiactionError(f"max_steps is {max_steps}; expected 1 or more, or None")
    films = len(seeds) if max_videos is None else min(max_videos, len(seeds))
    videos = Path(videos_dir) if videos_dir is not None and films > 0 else None
    if isinstance(gym, Environments):
        envs, own = gym, False
    else:
        envs, own = (
            Environments(as_gym(gym), len(seeds), async_envs=async_envs, render=videos is not None),
            True,
        )
    if len(seeds) > envs.num_envs:
        raise GetiactionError(f"{len(seeds)} seeds for {envs.num_envs} environments")
    film = [EpisodeVideo(videos, seed, envs.fps) for seed in seeds[:films]] if videos else []
    devices = devices_of(policy)
    try:
        with undisturbed(devices), evaluation_mode(policy):
            actors = Actors(policy, seeds, envs.gym.name, devices, batched=batched)
            tracks = _play(
                envs,
                actors,
                seeds,
                envs.max_steps(max_steps),
                film,
                keep_observations=return_observations,
                render_callback=render_callback,
            )
    except BaseException as error:
        for one in film:
            one.discard()
        if own:
            envs.close(at_once=not isinstance(error, Exception))
        raise
    if own:
        envs.close()
    paths = [one.finish(track.succeeded) for one, track in zip(film, tracks, strict=False)]
    paths += [None] * (len(tracks) - len(paths))
    keep = return_data or return_observations
    return [track.episode(path, keep) for track, path in zip(tracks, paths, strict=True)]


class _Track:
    """What has happened in one episode so far."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.over = False
        self.rewards: list[float] = []
        self.successes: list[bool] = []
        self.actions: list[Tensor] = []
        self.observations: list[dict[str, Tensor]] = []

    @property
    def succeeded(self) -> bool:
        return any(self.successes)

    def episode(self, video: Path | None, keep: bool) -> Episode:
        reward = torch.tensor(self.rewards, dtype=torch.float64)
        length = len(self.rewards)
        data: dict[str, Any] | None = None
        if keep:
            done = torch.zeros(length, dtype=torch.bool)
            done[-1] = True
            data = {
                "action": torch.stack(self.actions),
                "reward": reward,
                "success": torch.tensor(self.successes),
                "done": done,
            }
            if self.observations:
                data["observation"] = {
                    key: torch.stack([one[key] for one in self.observations])
                    for key in self.observations[0]
                }
        return Episode(
            seed=self.seed,
            sum_reward=reward.sum().item(),
            max_reward=reward.max().item(),
            success=self.succeeded,
            episode_length=length,
            data=data,
            video=video,
        )


def _play(
    envs: Environments,
    actors: Actors,
    seeds: Sequence[int],
    max_steps: int,
    film: Sequence[EpisodeVideo],
    *,
    keep_observations: bool,
    render_callback: RenderCallback | None,
) -> list[_Track]:
    tracks = [_Track(seed) for seed in seeds]

    def show() -> None:
        if film:
            for video, picture in zip(film, envs.pictures(), strict=False):
                if picture is not None:
                    video.add(picture)
        if render_callback is not None:
            render_callback(envs.vector)

    raw = envs.reset(seeds)
    show()
    # Rows of finished and idle environments are not looked at.
    actions: NDArray[Any] | None = None
    for step in range(max_steps):
        live = [lane for lane, track in enumerate(tracks) if not track.over]
        seen = _observations(envs, raw, live, batched=actors.batched, lanes=len(tracks))
        for lane, action in actors.act(seen, live):
            if actions is None:
                if tuple(action.shape) != envs.action_shape:
                    raise GetiactionError(
                        f"the policy's actions are {tuple(action.shape)}, those of "
                        f"{envs.gym.name} {envs.action_shape}: they do not belong together"
                    )
                actions = np.zeros((envs.num_envs, *action.shape), dtype=action.dtype)
            actions[lane] = action
            tracks[lane].actions.append(torch.from_numpy(action.copy()))
            if keep_observations:
                tracks[lane].observations.append(_row(seen, lane, live, actors.batched))
        assert actions is not None
        moment = envs.step(actions)
        raw = moment.raw
        for lane in live:
            track = tracks[lane]
            track.rewards.append(float(moment.reward[lane]))
            track.successes.append(bool(moment.success[lane]))
            track.over = bool(moment.terminated[lane] or moment.truncated[lane])
            track.over |= step + 1 == max_steps
        show()
        if keep_observations:
            ended = [lane for lane in live if tracks[lane].over]
            last = _observations(envs, raw, ended, batched=False, lanes=len(tracks))
            for lane in ended:
                tracks[lane].observations.append(_row(last, lane, ended, False))
        if all(track.over for track in tracks):
            break
    return tracks


def _observations(
    envs: Environments, raw: Any, live: Sequence[int], *, batched: bool, lanes: int
) -> list[dict[str, Any]]:
    """What policies see: one observation (B = lanes) if batched, else one (B = 1) for each lane."""
    spans = [slice(0, lanes)] if batched else [slice(lane, lane + 1) for lane in live]
    seen = []
    for span in spans:
        observation = envs.gym.to_observation(_slice(raw, span))
        observation.setdefault("task", envs.tasks[span])
        seen.append(observation)
    return seen


def _slice(raw: Any, span: slice) -> Any:
    if isinstance(raw, dict):
        return {key: _slice(value, span) for key, value in raw.items()}
    return raw[span]


def _row(
    seen: list[dict[str, Any]], lane: int, live: Sequence[int], batched: bool
) -> dict[str, Tensor]:
    one, at = (seen[0], lane) if batched else (seen[live.index(lane)], 0)
    return {key: value[at].clone() for key, value in one.items() if isinstance(value, Tensor)}


@contextmanager
def evaluation_mode(policy: Any) -> Iterator[None]:
    """Let every module of the policy be in evaluation mode inside, and as it was after."""
    modules = list(policy.modules()) if isinstance(policy, torch.nn.Module) else []
    before = [module.training for module in modules]
    if modules:
        policy.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training
