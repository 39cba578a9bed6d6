"""Lightning data modules and datasets: samples of LeRobot datasets, and rollouts in gyms."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from getiaction.data.deltas import require_deltas, set_deltas
    from getiaction.data.gather import GatheredDataset
    from getiaction.data.gym import GymDataset, RolloutBatch
    from getiaction.data.lerobot import LeRobotDataModule
    from getiaction.data.module import DataModule
    from getiaction.data.observation import Observation
    from getiaction.data.sampler import ResumableSampler

_HOMES = {
    "DataModule": "module",
    "GatheredDataset": "gather",
    "GymDataset": "gym",
    "LeRobotDataModule": "lerobot",
    "Observation": "observation",
    "ResumableSampler": "sampler",
    "RolloutBatch": "gym",
    "require_deltas": "deltas",
    "set_deltas": "deltas",
}

__all__ = [
    "DataModule",
    "GatheredDataset",
    "GymDataset",
    "LeRobotDataModule",
    "Observation",
    "ResumableSampler",
    "RolloutBatch",
    "require_deltas",
    "set_deltas",
]


def __getattr__(name: str) -> Any:
    # Loaded lazily: LeRobot takes seconds to import, which --help and fetching from S3 do not need.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
