"""Episode indices, lengths and metadata of an opened LeRobot dataset, in the order of its rows."""

from typing import Any

import numpy as np
from lerobot.datasets import LeRobotDataset
from numpy.typing import NDArray


def episodes_of(dataset: LeRobotDataset) -> NDArray[np.int64]:
    """Episode indices of ``dataset`` in the order of its rows."""
    if dataset.episodes is None:
        return np.arange(dataset.meta.total_episodes)
    return np.sort(np.asarray(dataset.episodes))


def episode_column(dataset: LeRobotDataset, name: str) -> NDArray[Any]:
    """The metadata field ``name`` of each episode, in the order of the dataset's rows."""
    values: NDArray[Any] = np.asarray(dataset.meta.episodes[name])[episodes_of(dataset)]
    return values


def episode_lengths(dataset: LeRobotDataset) -> NDArray[np.int64]:
    """Number of rows of each episode, in the order of the dataset's rows."""
    ends = episode_column(dataset, "dataset_to_index")
    lengths: NDArray[np.int64] = ends - episode_column(dataset, "dataset_from_index")
    return lengths
