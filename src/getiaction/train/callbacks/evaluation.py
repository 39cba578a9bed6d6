"""Lightning callback with the settings of validation and test rollouts; prints their results."""

import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from tqdm import tqdm

from getiaction.errors import GetiactionError
from getiaction.eval.statistics import NOT_MEASURED
from getiaction.policies.rollouts import Evaluated, RolloutSettings, metrics_of


class GymEvaluation(Callback):
    """Settings of rollouts in the data module's gyms; prints a summary of each evaluation.

    Rollouts do not need this callback: they run if the data module has gyms.

    Args:
        max_steps: Steps after which an episode ends; by default the data module's setting.
        num_videos: Number of episodes per gym to record as video at each evaluation.
        videos_dir: Directory of videos; by default ``videos`` in the trainer's
            ``default_root_dir``.
        batched: Infer the actions of all environments of a batch at once: faster on a GPU, and
            equal only within rounding.
        verbose: Print a line for each evaluation.
    """

    def __init__(
        self,
        max_steps: int | None = None,
        *,
        num_videos: int = 0,
        videos_dir: str | Path | None = None,
        batched: bool = False,
        verbose: bool = True,
    ) -> None:
        self.max_steps = max_steps
        self.num_videos = num_videos
        self.videos_dir = None if videos_dir is None else Path(videos_dir)
        self.batched = batched
        self.verbose = verbose
        self._begun = 0.0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Pass the settings to the policy."""
        if not isinstance(pl_module, Evaluated):
            raise GetiactionError(
                f"{type(pl_module).__name__} cannot be rolled out; GymEvaluation expects a "
                "getiaction.policies.base.Policy"
            )
        pl_module.rollout_settings = RolloutSettings(
            max_steps=self.max_steps,
            batched=self.batched,
            num_videos=self.num_videos,
            videos_dir=self.videos_dir or Path(trainer.default_root_dir) / "videos",
        )

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the summary."""
        if not trainer.sanity_checking:
            self._print_summary("validation", trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the summary."""
        self._print_summary("test", trainer, pl_module)

    def _print_summary(self, what: str, trainer: Any, policy: Any) -> None:
        if not (self.verbose and trainer.is_global_zero):
            return
        elapsed = time.perf_counter() - self._begun
        for name, episodes in policy.episodes.items():
            where = f" in {name}" if name else ""
            line = f"{what} at step {trainer.global_step}{where}: {summary(episodes)}"
            tqdm.write(f"{line}, {elapsed:.0f} s", file=sys.stderr)


def summary(episodes: list[Any]) -> str:
    """One-line summary: successes with their 95 % interval, mean reward and length."""
    values = metrics_of(episodes)
    outcome = NOT_MEASURED
    if "success" in values:
        succeeded = sum(bool(episode.success) for episode in episodes)
        low, high = (100 * values[name] for name in ("success_low", "success_high"))
        outcome = f"{succeeded}/{len(episodes)} succeeded ({low:.1f}-{high:.1f} %)"
    return (
        f"{outcome}, mean reward {values['reward_mean']:.3f}, "
        f"mean length {values['episode_length']:.1f}"
    )
