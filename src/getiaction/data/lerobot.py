"""A Lightning data module over one LeRobot dataset, feeding what native training feeds."""

import logging
import math
from pathlib import Path
from typing import Any, Literal

import torch
from datasets.exceptions import DatasetsError
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.utils.constants import IMAGENET_STATS
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from getiaction.data.frames import CacheLimits
from getiaction.data.frames import video_backend as default_video_backend
from getiaction.data.gather import GatheredDataset, collate_for, why_not_gathered
from getiaction.data.sampler import ResumableSampler
from getiaction.errors import GetiactionError
from getiaction.roots import require_dataset

logger = logging.getLogger(__name__)

# LeRobot's own defaults for worker processes; spawn because decoders do not survive a fork.
WORKER_OPTIONS = {"prefetch_factor": 4, "persistent_workers": True}
DEFAULT_WORKERS = 4

type DeltaTimestamps = dict[str, list[float]]


class LeRobotDataModule(LightningDataModule):
    """Batches of a LeRobot dataset in the order, and with the statistics, of native training.

    Delta timestamps come from the policy's config by LeRobot's own rule, so they are never given by
    hand; the config is taken from the module that is being fitted, or from :meth:`prepare`.

    Args:
        root: Local dataset directory.
        repo_id: Hub name; with ``root`` it is only a label.
        dataset: A dataset made already, instead of the two above.
        train_batch_size: Samples a step; the last batch of an epoch may be smaller.
        num_workers: Worker processes; ``"auto"`` is none when batches are gathered in memory.
        episodes: Episode indices to use; all unless given.
        val_split: Share of the episodes of each task, the last ones, held out for validation.
        seed: Decides, with the epoch, the order of samples.
        use_imagenet_stats: Normalise camera images by ImageNet's mean and deviation.
        gather: Hold the dataset as arrays: ``"auto"`` does when it fits ``cache``.
        cache: Bounds for decoded camera frames.
        tolerance_s: How far a frame may lie from the time asked for, in seconds.
        video_backend: LeRobot's name of a decoder; its own choice unless given.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        repo_id: str | None = None,
        dataset: LeRobotDataset | None = None,
        train_batch_size: int = 8,
        num_workers: int | Literal["auto"] = "auto",
        episodes: list[int] | None = None,
        val_split: float = 0.0,
        seed: int = 1000,
        use_imagenet_stats: bool = True,
        gather: bool | Literal["auto"] = "auto",
        cache: CacheLimits | None = None,
        tolerance_s: float = 1e-4,
        video_backend: str | None = None,
    ) -> None:
        super().__init__()
        if (dataset is None) == (root is None and repo_id is None):
            raise GetiactionError("give either a dataset, or the root or repo_id of one")
        if train_batch_size < 1:
            raise GetiactionError(f"the batch size is {train_batch_size}; expected at least 1")
        if not 0 <= val_split < 1:
            raise GetiactionError(f"val_split is {val_split}; expected a share from 0 to below 1")
        if root is not None:
            require_dataset(root)
        self.root = None if root is None else Path(root)
        self.repo_id = repo_id or (self.root.name if self.root is not None else "local")
        self.train_batch_size = train_batch_size
        self.episodes = episodes
        self.val_split = val_split
        self.seed = seed
        self.use_imagenet_stats = use_imagenet_stats
        self.tolerance_s = tolerance_s
        self.video_backend = video_backend or default_video_backend()
        self._num_workers = num_workers
        self._gather = gather
        self._cache = cache or CacheLimits()
        self._given = dataset
        self._meta: LeRobotDatasetMetadata | None = None
        self.train_dataset: Dataset[Any] | None = None
        self.val_dataset: Dataset[Any] | None = None

    @property
    def meta(self) -> Any:
        """LeRobot's metadata of the dataset, with the statistics to normalise by."""
        if self._meta is None:
            reader = LeRobotDatasetMetadata if self.root is None else _LocalMetadata
            given = None if self._given is None else self._given.meta
            self._meta = given or _read(reader, self.repo_id, self.root)
            if self.use_imagenet_stats:
                _put_imagenet_stats(self._meta)
        return self._meta

    @property
    def num_workers(self) -> int:
        """Worker processes of the training loader."""
        if self._num_workers != "auto":
            return self._num_workers
        return 0 if isinstance(self.train_dataset, GatheredDataset) else DEFAULT_WORKERS

    def setup(self, stage: str) -> None:
        """Open the dataset for the policy that the trainer is about to fit."""
        if self.train_dataset is None:
            config = getattr(getattr(self.trainer, "lightning_module", None), "config", None)
            if not isinstance(config, PreTrainedConfig):
                raise GetiactionError(
                    "the data module needs a LeRobot policy to know which frames a sample spans; "
                    "fit a LeRobotPolicy, or call prepare(config)"
                )
            self.prepare(config)

    def prepare(self, config: PreTrainedConfig) -> None:
        """Open the dataset with the delta timestamps that the policy ``config`` asks for."""
        deltas: DeltaTimestamps | None = resolve_delta_timestamps(config, self.meta)
        train_episodes, val_episodes = self._split()
        self.train_dataset = self._open(train_episodes, deltas)
        if val_episodes:
            self.val_dataset = self._open(val_episodes, deltas)
        drop_last = getattr(config, "drop_n_last_frames", 0)
        self._sampler = self._make_sampler(self.train_dataset, drop_last)

    @property
    def sampler(self) -> ResumableSampler:
        """The order of training samples."""
        return self._sampler

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch); draws its workers' seed from the global RNG, as natively."""
        assert self.train_dataset is not None
        return self._loader(self.train_dataset, self.num_workers, sampler=self._sampler)

    def val_dataloader(self) -> Any:
        """The held-out episodes in order; nothing if there are none."""
        if self.val_dataset is None:
            return []
        # Its own generator: iterating must not draw from the global RNG, which feeds dropout.
        own = torch.Generator().manual_seed(self.seed)
        return self._loader(self.val_dataset, 0, generator=own)

    def _loader(self, dataset: Dataset[Any], workers: int, **options: Any) -> DataLoader[Any]:
        if workers:
            options |= {**WORKER_OPTIONS, "multiprocessing_context": "spawn"}
        return DataLoader(
            dataset,
            batch_size=self.train_batch_size,
            num_workers=workers,
            collate_fn=collate_for(dataset),
            pin_memory=torch.cuda.is_available(),
            drop_last=False,
            **options,
        )

    def _make_sampler(self, dataset: Any, drop_n_last_frames: int) -> ResumableSampler:
        opened: Any = dataset.dataset if isinstance(dataset, GatheredDataset) else dataset
        return ResumableSampler(
            self.meta.episodes["dataset_from_index"],
            self.meta.episodes["dataset_to_index"],
            episode_indices_to_use=opened.episodes,
            drop_n_last_frames=drop_n_last_frames,
            shuffle=True,
            seed=self.seed,
            absolute_to_relative_idx=opened.absolute_to_relative_idx,
        )

    def _open(self, episodes: list[int] | None, deltas: DeltaTimestamps | None) -> Dataset[Any]:
        dataset: Any = self._given or _read(
            _LocalDataset if self.root is not None else LeRobotDataset,
            self.repo_id,
            self.root,
            episodes=episodes,
            delta_timestamps=deltas,
            tolerance_s=self.tolerance_s,
            video_backend=self.video_backend,
            return_uint8=True,
        )
        reason = "gather=False" if self._gather is False else why_not_gathered(dataset, self._cache)
        if reason is None:
            return GatheredDataset(dataset, self._cache)
        if self._gather is True:
            raise GetiactionError(f"the dataset cannot be held as arrays: {reason}")
        if self._gather == "auto":
            logger.info("reading the dataset item by item: %s", reason)
        opened: Dataset[Any] = dataset
        return opened

    def _split(self) -> tuple[list[int] | None, list[int]]:
        """Training and held-out episodes, by LeRobot's rule; None stands for all."""
        if not self.val_split:
            return self.episodes, []
        by_task: dict[str, list[int]] = {}
        for episode in self.episodes or range(self.meta.total_episodes):
            by_task.setdefault(self.meta.episodes["tasks"][episode][0], []).append(episode)
        train: list[int] = []
        held_out: list[int] = []
        for members in by_task.values():
            count = math.ceil(len(members) * self.val_split)
            train += members[: len(members) - count]
            held_out += members[len(members) - count :]
        if not train:
            raise GetiactionError(f"val_split={self.val_split} leaves no episode to train on")
        return train, held_out


class _LocalMetadata(LeRobotDatasetMetadata):  # type: ignore[misc]
    """Metadata on disk; what is missing is not fetched from the hub behind one's back."""

    def _pull_from_repo(self, *args: Any, **kwargs: Any) -> None:
        raise GetiactionError(
            f"the dataset at {self.root} is not whole: files under meta/ are missing; "
            "convert it again"
        )


class _LocalDataset(LeRobotDataset):  # type: ignore[misc]
    """A dataset on disk; see :class:`_LocalMetadata`."""

    def _download(self, *args: Any, **kwargs: Any) -> None:
        raise GetiactionError(
            f"the dataset at {self.root} is not whole: episodes that its metadata names have no "
            "data or video files; convert it again"
        )


def _read(reader: Any, repo_id: str, root: Path | None, **options: Any) -> Any:
    if root is None:
        return reader(repo_id, **options)
    try:
        # A revision that is no version number keeps LeRobot from asking the hub for one.
        return reader(repo_id, root=root, revision="local", **options)
    except (OSError, ValueError, KeyError, RuntimeError, DatasetsError) as error:
        # The first cause names the file or the column; what is raised on top of it does not.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise GetiactionError(f"the dataset at {root} cannot be read: {cause}") from error


def _put_imagenet_stats(meta: Any) -> None:
    for key in meta.camera_keys:
        if key not in meta.depth_keys:
            for name, values in IMAGENET_STATS.items():
                meta.stats[key][name] = torch.tensor(values, dtype=torch.float32)
