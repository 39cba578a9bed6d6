"""Evaluation under Lightning: rollouts in gyms, and the loss on held-out episodes."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, distributed

from getiaction.data.gym import GymDataset, RolloutBatch
from getiaction.errors import GetiactionError
from getiaction.gyms import as_gym
from getiaction.gyms.success import NAMES

# Means over episodes; then what LeRobot's evaluation reports, and Wilson's bounds of `success`.
MEANS = {
    "success": "success",
    "reward_mean": "sum_reward",
    "episode_length": "episode_length",
    "sum_reward": "sum_reward",
    "max_reward": "max_reward",
}
AGGREGATED = (
    "avg_sum_reward",
    "avg_max_reward",
    "pc_success",
    "avg_episode_length",
    "n_episodes",
)
BOUNDS = {"success_low": "success_rate_low", "success_high": "success_rate_high"}
METRICS = (*MEANS, *AGGREGATED, *BOUNDS)
OF_SUCCESS = ("success", "pc_success", *BOUNDS)


@dataclass(frozen=True)
class RolloutSettings:
    """Settings of the rollouts of a validation or test.

    Args:
        max_steps: Steps after which an episode ends; the data module's unless given.
        batched: Predict the actions of all environments of a batch in one call.
        num_videos: Episodes of each gym to record as video.
        videos_dir: Directory of the videos, with a subdirectory for each evaluation.
    """

    max_steps: int | None = None
    batched: bool = False
    num_videos: int = 0
    videos_dir: Path | None = None


class Evaluated(LightningModule):
    """A policy that Lightning's validation and test loops evaluate.

    A batch of a dataset gives ``val/loss``, the mean of the batches' losses, as LeRobot's offline
    evaluation has it. A :class:`RolloutBatch` is rolled out, and at the end of the loop all
    episodes, of all processes, give ``val/gym/<metric>`` (``test/gym/<metric>``) for each of
    :data:`METRICS`:

    - ``success`` (share, 0 to 1) with ``success_low`` and ``success_high``, the bounds of its 95 %
      Wilson interval; ``reward_mean`` and ``sum_reward``, both the mean over episodes of the sum of
      rewards; ``max_reward``; ``episode_length`` in steps;
    - LeRobot's ``avg_sum_reward``, ``avg_max_reward``, ``pc_success`` (0 to 100),
      ``avg_episode_length`` and ``n_episodes``.

    Metrics of success are left out, not 0, if no environment reports it.

    With several gyms, each has ``val/gym/<name>/<metric>`` as well. Evaluation does not affect
    training: the global random numbers, the modules' modes and the policy's own episode are
    restored.
    """

    #: Set by :class:`getiaction.train.callbacks.GymEvaluation`.
    rollout_settings = RolloutSettings()
    #: The episodes of the last evaluation, by gym and in the order of their seeds.
    episodes: Mapping[str, list[Any]] = MappingProxyType({})

    # : Environments that are open during an evaluation, by gym.
    _environments: Mapping[str, Any] = MappingProxyType({})
    _open = ExitStack()

    def held_out_loss(self, batch: Any) -> Tensor:
        """Return the loss, a 0-dim tensor, of a batch of held-out episodes."""
        raise GetiactionError(
            f"{type(self).__name__} has no loss for held-out episodes; leave out val_split"
        )

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Roll out, or compute the loss of held-out samples."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Roll out, or compute the loss of held-out samples."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Return the actions (B, T, A) planned for the batch, or the episodes rolled out."""
        if isinstance(batch, RolloutBatch):
            return self._roll_out(batch, "predict")
        plan: Any = self.predict_action_chunk
        return plan(batch)

    def on_validation_epoch_start(self) -> None:
        """Clear the episodes of the last evaluation."""
        self.episodes = {}

    def on_test_epoch_start(self) -> None:
        """Clear the episodes of the last evaluation."""
        self.episodes = {}

    def on_validation_epoch_end(self) -> None:
        """Close the environments and log the metrics of the episodes."""
        self._close_environments()
        self._log_episodes("val")

    def on_test_epoch_end(self) -> None:
        """Close the environments and log the metrics of the episodes."""
        self._close_environments()
        self._log_episodes("test")

    def on_predict_epoch_end(self) -> None:
        """Close the environments."""
        self._close_environments()

    def _evaluate(self, batch: Any, stage: str) -> None:
        if isinstance(batch, RolloutBatch):
            so_far = self.episodes.get(batch.name, [])
            self.episodes = {**self.episodes, batch.name: so_far + self._roll_out(batch, stage)}
            return
        # Each batch has weight one, the smaller last one too, as in LeRobot's loop; and the name
        # gets no loader index when there are gyms too.
        self.log(
            f"{stage}/loss",
            self.held_out_loss(batch),
            prog_bar=True,
            batch_size=1,
            add_dataloader_idx=False,
            sync_dist=True,
        )

    def _roll_out(self, batch: RolloutBatch, stage: str) -> list[Any]:
        # Imported here: getiaction.eval imports policies, which import this module.
        from getiaction.eval import run_episodes

        settings = self.rollout_settings
        films = settings.num_videos - len(self.episodes.get(batch.name, []))
        # Lightning evaluates in inference mode; tensors that a policy caches there would be
        # unusable in training.
        with torch.inference_mode(False):
            try:
                episodes: list[Any] = run_episodes(
                    self._opened(batch) if batch.seeds else batch.gym,
                    self,
                    batch.seeds,
                    max_steps=settings.max_steps or batch.max_steps,
                    batched=settings.batched,
                    videos_dir=self._videos_dir(stage, batch.name),
                    max_videos=max(films, 0) if self.trainer.is_global_zero else 0,
                )
            except BaseException:
                self._close_environments()
                raise
        return episodes

    def _opened(self, batch: RolloutBatch) -> Any:
        """Return the gym's environments, kept open for later batches: making them takes seconds."""
        from getiaction.eval import Environments

        found = self._environments.get(batch.name)
        if found is not None and found.num_envs >= len(batch.seeds):
            return found
        if not self._environments:
            self._open = ExitStack()
        made = self._open.enter_context(
            Environments(
                as_gym(batch.gym),
                len(batch.seeds),
                async_envs=batch.async_envs,
                render=self.rollout_settings.num_videos > 0,
            )
        )
        self._environments = {**self._environments, batch.name: made}
        return made

    def _close_environments(self) -> None:
        self._environments = {}
        self._open.__exit__(*sys.exc_info())

    def _videos_dir(self, stage: str, gym: str) -> Path | None:
        directory = self.rollout_settings.videos_dir
        if directory is None:
            return None
        return directory / f"{stage}_step_{self.global_step:06d}" / gym

    def _log_episodes(self, stage: str) -> None:
        self.episodes = gathered(self.episodes)
        if not any(self.episodes.values()):
            return
        self._log_metrics(f"{stage}/gym", *self.episodes.values())
        if len(self.episodes) > 1:
            for name, episodes in self.episodes.items():
                self._log_metrics(f"{stage}/gym/{name}", episodes)

    def _log_metrics(self, prefix: str, *gyms: list[Any]) -> None:
        values = {f"{prefix}/{name}": value for name, value in metrics_of(*gyms).items()}
        # All processes have the same values; sync_dist only avoids Lightning's warning.
        self.log_dict(values, batch_size=1, sync_dist=True)
        missing = {f"{prefix}/{name}" for name in OF_SUCCESS} - values.keys()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            metric = getattr(callback, "monitor", None)
            if metric in missing and metric not in self.trainer.callback_metrics:
                raise GetiactionError(
                    f"{type(callback).__name__} watches {metric!r}, but the environment tells no "
                    f"success: its info has none of {', '.join(NAMES)}; let it tell one at each "
                    f"step, or watch {prefix + '/reward_mean'!r}"
                )


def metrics_of(*gyms: list[Any]) -> dict[str, float]:
    """Return :data:`METRICS` of the episodes of one or more gyms, without a prefix.

    Those of success are over the gyms that report it, and left out if none does.
    """
    from getiaction.eval import aggregate

    episodes = [episode for several in gyms for episode in several]
    telling = (several for several in gyms if any(e.success is not None for e in several))
    totals = aggregate(episodes)
    told = aggregate([episode for several in telling for episode in several])
    means = {
        name: sum(float(getattr(episode, field)) for episode in episodes) / len(episodes)
        for name, field in MEANS.items()
        if field != "success"
    }
    values = {
        "success": told["success_rate"],
        **means,
        **{name: totals[name] for name in AGGREGATED},
        "pc_success": told["pc_success"],
        **{name: told[field] for name, field in BOUNDS.items()},
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def gathered(episodes: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the episodes of all processes, each once, sorted by seed."""
    parts: list[Any] = [episodes]
    if distributed.is_available() and distributed.is_initialized():
        parts = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, episodes)
    # Processes repeat episodes that cannot be distributed evenly.
    once: dict[str, dict[int, Any]] = {}
    for part in parts:
        for name, several in part.items():
            once.setdefault(name, {}).update({episode.seed: episode for episode in several})
    return {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in once.items()}


def gyms_of(loaders: Iterable[Any]) -> list[str]:
    """Return the names of the loaders' gyms."""
    datasets = [getattr(loader, "dataset", None) for loader in loaders]
    return [dataset.name for dataset in datasets if isinstance(dataset, GymDataset)]
