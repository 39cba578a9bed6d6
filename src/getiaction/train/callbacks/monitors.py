"""ModelCheckpoint and EarlyStopping that infer the mode from the metric's name."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch import callbacks as lightnings

from foundation.text import did_you_mean
from getiaction.errors import GetiactionError
from getiaction.policies.rollouts import METRICS, gyms_of

logger = logging.getLogger(__name__)

type Mode = Literal["min", "max"]

LARGER_IS_BETTER = ("success", "reward")
SMALLER_IS_BETTER = ("loss", "length", "error")


def mode_of(metric: str) -> Mode | None:
    """Infer from a metric's name whether to minimise or maximise it; None if unknown."""
    name = metric.rpartition("/")[2]
    if any(word in name for word in LARGER_IS_BETTER):
        return "max"
    return "min" if any(word in name for word in SMALLER_IS_BETTER) else None


def _mode(callback: str, monitor: str, given: Mode | None) -> Mode:
    mode = given or mode_of(monitor)
    if mode is None:
        raise GetiactionError(
            f"{callback} cannot infer the mode of {monitor!r} from its name: give "
            "mode='min' or 'max'"
        )
    return mode


class ModelCheckpoint(lightnings.ModelCheckpoint):
    """Lightning's ModelCheckpoint that infers the mode from its metric's name.

    Args:
        dirpath: As Lightning's.
        filename: As Lightning's.
        monitor: As Lightning's, e.g. ``val/gym/success``.
        mode: As Lightning's; by default inferred from the metric's name.
        **kwargs: The rest of Lightning's arguments.

    Raises:
        GetiactionError: the mode cannot be inferred from the metric's name.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        *,
        mode: Mode | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = "min" if monitor is None else _mode("ModelCheckpoint", monitor, mode)
        super().__init__(dirpath=dirpath, filename=filename, monitor=monitor, mode=chosen, **kwargs)


class EarlyStopping(lightnings.EarlyStopping):
    """Lightning's EarlyStopping that infers the mode from its metric's name.

    Args:
        monitor: As Lightning's, e.g. ``val/gym/success``.
        mode: As Lightning's; by default inferred from the metric's name.
        **kwargs: The rest of Lightning's arguments.

    Raises:
        GetiactionError: the mode cannot be inferred from the metric's name.
    """

    def __init__(self, monitor: str, *, mode: Mode | None = None, **kwargs: Any) -> None:
        chosen = _mode("EarlyStopping", monitor, mode)
        super().__init__(monitor=monitor, mode=chosen, **kwargs)


class MonitorCheck(Callback):
    """Check before training that the metrics monitored by other callbacks will be logged."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Correct the mode of callbacks added to the trainer later too."""
        maximise_success(trainer.callbacks)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check each monitored metric of rollouts or held-out episodes.

        Raises:
            GetiactionError: the message has the metric and what is needed to log it.
        """
        if trainer.fast_dev_run:
            return
        loaders = _loaders(trainer)
        for callback in trainer.callbacks:
            metric = getattr(callback, "monitor", None)
            if isinstance(metric, str) and loaders is not None:
                _require(type(callback).__name__, metric, loaders)


def maximise_success(callbacks: Iterable[Callback]) -> None:
    """Set ``mode="max"`` of callbacks that monitor success or reward with Lightning's ``min``."""
    for callback in callbacks:
        metric = getattr(callback, "monitor", None)
        if (
            not isinstance(callback, lightnings.ModelCheckpoint | lightnings.EarlyStopping)
            or metric is None
            or mode_of(metric) != "max"
            or callback.mode == "max"
        ):
            continue
        callback.mode = "max"
        if isinstance(callback, lightnings.ModelCheckpoint):
            callback.kth_value = torch.tensor(-torch.inf)
        else:
            # Lightning stores min_delta with the sign of the mode.
            callback.min_delta = abs(callback.min_delta)
            callback.best_score = torch.tensor(-torch.inf)
        logger.warning(
            "%s watches %r, of which more is better: taking mode='max' instead of 'min'",
            type(callback).__name__,
            metric,
        )


def _loaders(trainer: Any) -> list[Any] | None:
    """Validation loaders; None before Lightning has created them."""
    if trainer.limit_val_batches == 0:
        return []
    loaders = trainer.val_dataloaders
    if loaders is None:
        return None
    if isinstance(loaders, dict):
        return list(loaders.values())
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]


def _require(callback: str, metric: str, loaders: list[Any]) -> None:
    names = gyms_of(loaders)
    if metric == "val/loss" and len(loaders) == len(names):
        raise GetiactionError(
            f"{callback} watches 'val/loss', but no episodes are held out to compute it on; give "
            "the data module val_split or a val_dataset"
        )
    if not metric.startswith("val/gym/"):
        return
    if not names:
        raise GetiactionError(
            f"{callback} watches {metric!r}, but there are no gyms for rollouts; give the data "
            "module val_gyms"
        )
    available = [f"val/gym/{name}" for name in METRICS]
    if len(names) > 1:
        available += [f"val/gym/{gym}/{name}" for gym in names for name in METRICS]
    if metric not in available:
        meant = did_you_mean(metric, available) or f"; there are: {', '.join(available)}"
        raise GetiactionError(f"{callback} watches {metric!r}, which nothing logs{meant}")
