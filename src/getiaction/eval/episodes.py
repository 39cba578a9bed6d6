"""Rollout loop: independent episodes of a policy in parallel environments."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.eval.actors import Actors, View, devices_of
from getiaction.eval.environments import Environments
from getiaction.eval.episode import Episode, Track
from getiaction.eval.video import EpisodeVideos
from getiaction.gyms import as_gym
from getiaction.gyms.randomness import undisturbed

RenderCallback = Callable[[Any], None]


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
    """Play one episode per seed, all in parallel.

    Each episode has its own ``policy.session()`` and random streams, seeded with its seed, so its
    result does not depend on the episodes beside it, to the bit. The global random streams and the
    policy's training mode are restored afterwards.

    Args:
        gym: A Gym, a Gymnasium id, a ``gymnasium.Env``, or open :class:`Environments`, at least as
            many as there are seeds.
        policy: A :class:`getiaction.policies.base.Policy`, or anything with ``reset`` and
            ``select_action``; what has no ``session`` is copied for each episode.
        seeds: One per episode.
        max_steps: Steps after which an episode ends; the gym's limit if None, and 1000 if it has
            none.
        async_envs: Run each environment in its own process.
        batched: Infer actions of all episodes at once, as LeRobot does: faster on a GPU, where
            many small calls cost more than a large one. A matrix product over more rows may round
            differently (about 1e-6 of an action), and a stochastic policy gets other random
            numbers, so results are comparable only for the same seeds in the same batches.
        return_data: Keep actions, rewards and successes in :attr:`Episode.data`.
        return_observations: Keep observations too.
        videos_dir: Directory for a video of each episode, ``seed_<seed>_<outcome>.mp4``, with
            T + 1 frames; the outcome is success, failure or not_measured.
        max_videos: Maximum number of videos, of the first episodes.
        render_callback: Called with the vector environment after the reset and after each step.

    Raises:
        GetiactionError: the environment cannot be created or raises (the message has the seed), or
            its observations or actions do not match the policy.
    """
    if max_steps is not None and max_steps < 1:
        raise GetiactionError(f"max_steps is {max_steps}; expected 1 or more, or None")
    if not seeds:
        return []
    recorded = list(seeds) if videos_dir is not None else []
    recorded = recorded[:max_videos]
    devices = devices_of(policy)
    with ExitStack() as stack:
        stack.enter_context(undisturbed(devices))
        if isinstance(gym, Environments):
            envs = gym
        else:
            envs = stack.enter_context(
                Environments(
                    as_gym(gym), len(seeds), async_envs=async_envs, render=len(recorded) > 0
                )
            )
        if len(seeds) > envs.num_envs:
            raise GetiactionError(
                f"{len(seeds)} seeds were given for {envs.num_envs} open environments"
            )
        video = stack.enter_context(EpisodeVideos(Path(videos_dir or ""), recorded, envs.fps))
        stack.enter_context(evaluation_mode(policy))
        actors = Actors(policy, seeds, envs.gym.name, devices, batched=batched)

        def show() -> None:
            if video.active:
                video.add(envs.render())
            if render_callback is not None:
                render_callback(envs.vector)

        limit = envs.max_steps(max_steps)
        tracks = _play(envs, actors, seeds, limit, show, keep_seen=return_observations)
        videos = video.finish([track.success for track in tracks])
    keep = return_data or return_observations
    return [track.episode(path, keep=keep) for track, path in zip(tracks, videos, strict=True)]


def _play(
    envs: Environments,
    actors: Actors,
    seeds: Sequence[int],
    max_steps: int,
    show: Callable[[], None],
    *,
    keep_seen: bool,
) -> list[Track]:
    tracks = [Track(seed) for seed in seeds]
    raw = envs.reset(seeds)
    show()
    # Rows of finished and idle environments are ignored.
    actions: NDArray[Any] | None = None
    for step in range(max_steps):
        live = [lane for lane, track in enumerate(tracks) if not track.over]
        for view in _views(envs, raw, live, len(tracks) if actors.batched else 0):
            for lane, action in actors.act(view):
                if actions is None:
                    actions = _rows_for(action, envs)
                actions[lane] = action
                tracks[lane].actions.append(torch.from_numpy(action.copy()))
            if keep_seen:
                _store_observations(view, tracks)
        assert actions is not None
        moment = envs.step(actions)
        raw = moment.raw
        for lane in live:
            over = moment.terminated[lane] or moment.truncated[lane] or step + 1 == max_steps
            success = bool(moment.success[lane]) if moment.measured[lane] else None
            tracks[lane].add(moment.reward[lane], success=success, over=bool(over))
        show()
        if keep_seen:
            for view in _views(envs, raw, [lane for lane in live if tracks[lane].over]):
                _store_observations(view, tracks)
        if all(track.over for track in tracks):
            break
    return tracks


def _views(envs: Environments, raw: Any, lanes: Sequence[int], together: int = 0) -> list[View]:
    """Observations of ``lanes``: one view each, or one of the first ``together`` lanes."""
    if together:
        return [View(envs.observation(raw, slice(0, together)), {lane: lane for lane in lanes})]
    return [View(envs.observation(raw, slice(lane, lane + 1)), {lane: 0}) for lane in lanes]


def _store_observations(view: View, tracks: Sequence[Track]) -> None:
    for lane, row in view.rows.items():
        tracks[lane].see(view.observation, row)


def _rows_for(action: NDArray[Any], envs: Environments) -> NDArray[Any]:
    """Allocate an array for the actions of all environments, after checking their shape."""
    if action.shape != envs.action_shape:
        raise GetiactionError(
            f"the policy's actions have the shape {action.shape}, but {envs.gym.name} takes "
            f"{envs.action_shape}"
        )
    return np.zeros((envs.num_envs, *action.shape), dtype=action.dtype)


@contextmanager
def evaluation_mode(policy: Any) -> Iterator[None]:
    """Set every module of the policy to evaluation mode, and restore it afterwards."""
    modules = list(policy.modules()) if isinstance(policy, torch.nn.Module) else []
    before = [module.training for module in modules]
    if modules:
        policy.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training
