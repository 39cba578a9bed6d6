"""Dataset sources of a data module: an opened LeRobotDataset, or one by its root or repo id."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lerobot.datasets import LeRobotDataset

from getiaction.data.deltas import TOLERANCE_S, DeltaTimestamps
from getiaction.data.frames import video_backend as default_video_backend
from getiaction.data.gather import GatheredDataset
from getiaction.data.opening import read_dataset, read_metadata, reopen, require_episodes
from getiaction.errors import GetiactionError


class Source(ABC):
    """A LeRobot dataset that can be opened with the delta timestamps of a policy."""

    repo_id: str
    root: Path | None
    episodes: list[int] | None
    tolerance_s: float
    #: Delta timestamps with which it was given.
    deltas: DeltaTimestamps | None

    @property
    @abstractmethod
    def video_backend(self) -> str:
        """LeRobot's name of the video decoder."""

    @abstractmethod
    def read_meta(self) -> Any:
        """Return LeRobot's metadata."""

    @abstractmethod
    def open(
        self, episodes: list[int] | None, deltas: DeltaTimestamps | None, *, training: bool
    ) -> LeRobotDataset:
        """Open ``episodes`` with ``deltas``; image transforms are for training only."""

    @abstractmethod
    def plain(self) -> LeRobotDataset:
        """Return the dataset before a policy is known: as given, or without deltas."""


class GivenSource(Source):
    """A ``LeRobotDataset`` opened by the user, which is not modified."""

    def __init__(
        self,
        dataset: LeRobotDataset,
        episodes: list[int] | None = None,
        image_transforms: Callable[..., Any] | None = None,
    ) -> None:
        require_episodes(episodes, dataset.meta.total_episodes)
        own: list[int] | None = dataset.episodes
        if own is not None and (missing := sorted(set(episodes or []) - set(own))):
            raise GetiactionError(f"the given dataset was opened without episodes {missing}")
        self.dataset = dataset
        self.repo_id = dataset.repo_id
        self.root = Path(dataset.root)
        self.episodes = own if episodes is None else episodes
        self.tolerance_s = dataset.tolerance_s
        self.deltas = dataset.delta_timestamps
        self.image_transforms = image_transforms or dataset.image_transforms

    @property
    def video_backend(self) -> str:
        """LeRobot's name of the video decoder."""
        return str(self.dataset._video_backend)

    def read_meta(self) -> Any:
        """Return the dataset's own metadata."""
        require_episodes(self.episodes, self.dataset.meta.total_episodes)
        return self.dataset.meta

    def open(
        self, episodes: list[int] | None, deltas: DeltaTimestamps | None, *, training: bool
    ) -> LeRobotDataset:
        """Open the given dataset again."""
        transforms = self.image_transforms if training else None
        return reopen(self.dataset, episodes=episodes, deltas=deltas, image_transforms=transforms)

    def plain(self) -> LeRobotDataset:
        """Return the given dataset."""
        return self.dataset


class NamedSource(Source):
    """A dataset by its directory or its name on the hub; see :class:`LeRobotDataModule`."""

    deltas = None

    def __init__(
        self,
        repo_id: str,
        root: Path | None,
        *,
        episodes: list[int] | None = None,
        image_transforms: Callable[..., Any] | None = None,
        tolerance_s: float = TOLERANCE_S,
        video_backend: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.repo_id = repo_id
        self.root = root
        self.episodes = episodes
        self.image_transforms = image_transforms
        self.tolerance_s = tolerance_s
        self.revision = revision
        self._video_backend = video_backend
        self._meta: Any = None
        self._plain: LeRobotDataset | None = None

    @property
    def video_backend(self) -> str:
        """LeRobot's name of the video decoder, by default its own choice."""
        self._video_backend = self._video_backend or default_video_backend()
        return self._video_backend

    def read_meta(self) -> Any:
        """Read the metadata from the disk or the hub, once."""
        if self._meta is None:
            self._meta = read_metadata(self.repo_id, self.root, self.revision)
            require_episodes(self.episodes, self._meta.total_episodes)
        return self._meta

    def open(
        self, episodes: list[int] | None, deltas: DeltaTimestamps | None, *, training: bool
    ) -> LeRobotDataset:
        """Open it from the disk or the hub."""
        self._plain = None
        return read_dataset(
            self.repo_id,
            self.root,
            self.revision,
            episodes=episodes,
            delta_timestamps=deltas,
            image_transforms=self.image_transforms if training else None,
            tolerance_s=self.tolerance_s,
            video_backend=self.video_backend,
            return_uint8=True,
        )

    def plain(self) -> LeRobotDataset:
        """Open it without deltas, once."""
        if self._plain is None:
            self.read_meta()
            self._plain = self.open(self.episodes, None, training=True)
        return self._plain


def source_of(dataset: Any) -> Source | None:
    """Return the source of a LeRobot dataset, also if held as arrays; None for any other."""
    if isinstance(dataset, GatheredDataset):
        dataset = dataset.dataset
    return GivenSource(dataset) if isinstance(dataset, LeRobotDataset) else None
