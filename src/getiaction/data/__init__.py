"""Data for Lightning: samples of LeRobot datasets, and rollouts in gyms."""

from getiaction.data.deltas import require_deltas, set_deltas
from getiaction.data.gather import GatheredDataset
from getiaction.data.gym import GymDataset, RolloutBatch
from getiaction.data.lerobot import LeRobotDataModule
from getiaction.data.module import DataModule
from getiaction.data.observation import Observation
from getiaction.data.sampler import ResumableSampler

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
