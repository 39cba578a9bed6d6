"""A Lightning data module over one LeRobot dataset, feeding what native training feeds."""

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from lerobot.datasets import LeRobotDataset

from getiaction.data.deltas import TOLERANCE_S, DeltaTimestamps
from getiaction.data.frames import video_backend as default_video_backend
from getiaction.data.module import DataModule
from getiaction.data.opening import read_dataset, read_metadata, reopen, require_episodes
from getiaction.errors import GetiactionError
from getiaction.roots import local_root, require_dataset


class LeRobotDataModule(DataModule):
    """Batches of a LeRobot dataset in the order, and with the statistics, of native training.

    Delta timestamps come from the policy's config by LeRobot's own rule, so they need not be given
    by hand; the config is taken from the module that is being fitted, or from :meth:`prepare`.

    Args:
        repo_id: Hub name; with ``root`` it is only a label.
        root: Local dataset directory, or ``s3://bucket/prefix``.
        dataset: A dataset made already, instead of the two above.
        episodes: Episode indices to use; all unless given.
        image_transforms: Applied to camera frames of training samples, one by one.
        tolerance_s: How far a frame may lie from the time asked for, in seconds.
        video_backend: LeRobot's name of a decoder; its own choice unless given.
        revision: Of the hub's repository.
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
        super().__init__(dataset, **options)
        self._root = None if root is None else local_root(root)
        if self._root is not None:
            require_dataset(self._root)
        self._repo_id = repo_id or ("local" if root is None else PurePath(root).name)
        self._episodes = episodes
        self._image_transforms = image_transforms
        self._tolerance_s = tolerance_s
        self._video_backend = video_backend
        self._revision = revision
        self._plain: LeRobotDataset | None = dataset
        if dataset is not None and episodes is not None:
            missing = sorted(set(episodes) - set(dataset.episodes or episodes))
            if missing:
                raise GetiactionError(f"the given dataset was opened without episodes {missing}")

    @property
    def root(self) -> Path | None:
        """Directory of the dataset, if it was given by one."""
        return self._root if self._given is None else super().root

    @property
    def repo_id(self) -> str:
        """LeRobot's name of the dataset."""
        return self._repo_id if self._given is None else super().repo_id

    @property
    def episodes(self) -> list[int] | None:
        """Episode indices in use; None stands for all."""
        return super().episodes if self._episodes is None else self._episodes

    @property
    def tolerance_s(self) -> float:
        """How far a frame may lie from the time asked for, in seconds."""
        return self._tolerance_s if self._given is None else super().tolerance_s

    @property
    def video_backend(self) -> str | None:
        """LeRobot's name of the video decoder."""
        if self._video_backend is None:
            self._video_backend = super().video_backend or default_video_backend()
        return self._video_backend

    @property
    def train_dataset(self) -> Any:
        """What is trained on; before the policy is known, each sample is of one frame."""
        if self._train is not None:
            return self._train
        if self._plain is None:
            self._plain = self._read(self.episodes, None, self._image_transforms)
        return self._plain

    def _read_meta(self) -> Any:
        if self._given is not None:
            meta = super()._read_meta()
        else:
            meta = read_metadata(self.repo_id, self._root, self._revision)
        require_episodes(self.episodes, meta.total_episodes)
        return meta

    def _has_lerobot_source(self) -> bool:
        return True

    def _open(
        self, episodes: list[int] | None, deltas: DeltaTimestamps | None, *, training: bool
    ) -> LeRobotDataset:
        transforms = self._image_transforms if training else None
        if self._given is None:
            self._plain = None
            return self._read(episodes, deltas, transforms)
        own = self._given.image_transforms if training else None
        return reopen(
            self._given, episodes=episodes, deltas=deltas, image_transforms=transforms or own
        )

    def _read(self, episodes: list[int] | None, deltas: Any, transforms: Any) -> LeRobotDataset:
        require_episodes(episodes, self.meta.total_episodes)
        return read_dataset(
            self.repo_id,
            self._root,
            self._revision,
            episodes=episodes,
            delta_timestamps=deltas,
            image_transforms=transforms,
            tolerance_s=self.tolerance_s,
            video_backend=self.video_backend,
            return_uint8=True,
        )
