"""Training data for Lightning from LeRobot datasets."""

from getiaction.data.gather import GatheredDataset
from getiaction.data.lerobot import LeRobotDataModule
from getiaction.data.sampler import ResumableSampler

__all__ = ["GatheredDataset", "LeRobotDataModule", "ResumableSampler"]
