"""LeRobotDataModule: one LeRobot dataset for Lightning, with the batches of native training."""

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from lerobot.datasets import LeRobotDataset

from getiaction.data.deltas import TOLERANCE_S
from getiaction.data.module import DataModule
from getiaction.data.sources import GivenSource, NamedSource
from getiaction.errors import GetiactionError
from getiaction.roots import local_root, require_dataset


class LeRobotDataModule(DataModule):
    """Batches of a LeRobot dataset in the order, and with the statistics, of native training.

    Delta timestamps follow from the policy's config by LeRobot's rule; the config is taken from the
    module that is being fitted, or from :meth:`prepare`.

    Args:
        repo_id: Hub name; with ``root`` it is only a label.
        root: Local dataset directory, ``s3://bucket/prefix``, or ``hf://datasets/USER/NAME``.
        dataset: An opened dataset, instead of the two above.
        episodes: Episode indices to use; by default all.
        image_transforms: Applied to camera frames of training samples, one by one.
        tolerance_s: Maximum difference between requested and found frame time, in seconds.
        video_backend: LeRobot's name of a decoder; by default its own choice.
        revision: Revision of the hub's repository.
        **options: Those of :class:`DataModule`, without ``train_dataset``.

    Raises:
        GetiactionError: the arguments contradict each other, or there is no such dataset.
    """

    def __init__(
        self,
        *,
        repo_id: str | None = None,
        root: str | Path | None = None,
        dataset: LeRobotDataset | None = None,
        episodes: list[int] | None = None,
        image_transforms: Callable[..., Any] | None = None,
        tolerance_s: float = TOLERANCE_S,
        video_backend: str | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> None:
        if (dataset is None) == (root is None and repo_id is None):
            raise GetiactionError("give either a dataset, or the root or repo_id of one")
        super().__init__(**options)
        if dataset is not None:
            self._source = GivenSource(dataset, episodes, image_transforms)
            return
        local = None if root is None else local_root(root)
        if local is not None:
            require_dataset(local)
        self._source = NamedSource(
            repo_id or PurePath(root or "local").name,
            local,
            episodes=episodes,
            image_transforms=image_transforms,
            tolerance_s=tolerance_s,
            video_backend=video_backend,
            revision=revision,
        )
