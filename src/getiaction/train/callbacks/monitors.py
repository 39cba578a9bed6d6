"""ModelCheckpoint and EarlyStopping that know by a metric's name which way it is better."""

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
    """Say whether a metric is to be small or large, by its name; None where that says nothing."""
    name = metric.rpartition("/")[2]
    if any(word in name for word in LARGER_IS_BETTER):
        return "max"
    return "min" if any(word in name for word in SMALLER_IS_BETTER) else None


def _mode(callback: str, monitor: str, given: Mode | None) -> Mode:
    mode = given or mode_of(monitor)
    if mode is None:
        raise GetiactionError(
            f"{callback} cannot tell whether a large {monitor!r} is good: give mode='min' or 'max'"
        )
    return mode


class ModelCheckpoint(lightnings.ModelCheckpoint):
    """Lightning's ModelCheckpoint that knows which way its metric is better.

    Args:
        dirpath: As Lightning's.
        filename: As Lightning's.
        monitor: As Lightning's, e.g. ``val/gym/success``.
        mode: As Lightning's; by the metric's name unless given.
        **kwargs: The rest of Lightning's arguments.

    Raises:
        GetiactionError: the metric's name does not say which way is better.
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
    """Lightning's EarlyStopping that knows which way its metric is better.

    Args:
        monitor: As Lightning's, e.g. ``val/gym/success``.
        mode: As Lightning's; by the metric's name unless given.
        **kwargs: The rest of Lightning's arguments.

    Raises:
        GetiactionError: the metric's name does not say which way is better.
    """

    def __init__(self, monitor: str, *, mode: Mode | None = None, **kwargs: Any) -> None:
        chosen = _mode("EarlyStopping", monitor, mode)
        super().__init__(monitor=monitor, mode=chosen, **kwargs)


class MonitorCheck(Callback):
    """Before training begins, look whether what other callbacks watch will ever be there."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let callbacks that the trainer got later look the right way too."""
        look_upwards(trainer.callbacks)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check each watched metric that rollouts or held-out episodes would log.

        Raises:
            GetiactionError: naming the metric and what would bring it.
        """
        if trainer.fast_dev_run:
            return
        loaders = _loaders(trainer)
        for callback in trainer.callbacks:
            metric = getattr(callback, "monitor", None)
            if isinstance(metric, str) and loaders is not None:
                _require(type(callback).__name__, metric, loaders)


def look_upwards(callbacks: Iterable[Callback]) -> None:
    """Turn callbacks that would keep the lowest success or reward, Lightning's default, around."""
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
            # Lightning keeps the bound with the sign of the direction.
            callback.min_delta = abs(callback.min_delta)
            callback.best_score = torch.tensor(-torch.inf)
        logger.warning(
            "%s watches %r, of which more is better: taking mode='max' instead of 'min'",
            type(callback).__name__,
            metric,
        )


def _loaders(trainer: Any) -> list[Any] | None:
    """Validation loaders; None while Lightning has not asked for them."""
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
            f"{callback} watches {metric!r}, but there is no gym to roll out in; give the data "
            "module val_gyms"
        )
    offered = [f"val/gym/{name}" for name in METRICS]
    if len(names) > 1:
        offered += [f"val/gym/{gym}/{name}" for gym in names for name in METRICS]
    if metric not in offered:
        meant = did_you_mean(metric, offered) or f"; there are: {', '.join(offered)}"
        raise GetiactionError(f"{callback} watches {metric!r}, which nothing logs{meant}")
