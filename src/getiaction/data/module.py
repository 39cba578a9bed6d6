"""A Lightning data module: a dataset to train on, and what to validate and test on."""

import logging
from pathlib import Path
from typing import Any, Literal

from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from getiaction.config import FromConfig
from getiaction.data.deltas import DeltaTimestamps, deltas_of, require_deltas
from getiaction.data.frames import CacheLimits
from getiaction.data.gather import GatheredDataset, collate_for, why_not_gathered
from getiaction.data.gym import GymDataset, named_gyms, rollout_loader
from getiaction.data.loaders import evaluation_loader, training_loader
from getiaction.data.opening import reopen, require_episodes, with_statistics
from getiaction.data.sampler import ResumableSampler
from getiaction.data.splits import split_episodes
from getiaction.errors import GetiactionError
from getiaction.gyms import Gym

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 8
DEFAULT_WORKERS = 4
# Far from those of validation, so that a policy is never tested on what it was chosen by.
VAL_START_SEED, TEST_START_SEED = 1000, 100_000


class DataModule(FromConfig, LightningDataModule):
    """Batches of a dataset in the order of native LeRobot training, and rollouts in gyms.

    A ``LeRobotDataset`` is opened again with the delta timestamps that the policy needs; the given
    one stays as it is. Any other torch dataset is taken as it is.

    Args:
        train_dataset: What to train on; None where nothing is trained.
        train_batch_size: Samples a step and process, 8 unless given; the last batch of an epoch may
            be smaller.
        batch_size: Another name of ``train_batch_size``.
        val_dataset: What to compute the loss of in validation.
        val_split: Share of the episodes of each task, the last ones, held out for validation.
        val_gyms: Where to roll out in validation: a gym, a Gymnasium id, a list of those, or a dict
            from the names that they have in metrics.
        num_rollouts_val: Episodes a gym and validation.
        val_start_seed: Seed of the first of them; the next ones follow.
        test_gyms: Where to roll out in ``trainer.test``.
        num_rollouts_test: Episodes a gym.
        test_start_seed: Seed of the first of them.
        max_episode_steps: Steps after which an episode ends; the gym's own limit if None.
        num_envs: Environments side by side.
        async_envs: Step them in processes of their own.
        num_workers: Worker processes; ``"auto"`` is none when batches are gathered in memory.
        delta_timestamps: Seconds from the present frame, by key. They follow from the policy; where
            they are given, they are checked.
        seed: Decides, with the epoch, the order of samples.
        use_imagenet_stats: Normalise camera images by ImageNet's mean and deviation.
        gather: Hold the dataset as arrays: ``"auto"`` does when it fits ``cache``.
        cache: Bounds for decoded camera frames.

    Raises:
        GetiactionError: the arguments contradict each other.
    """

    def __init__(
        self,
        train_dataset: Dataset[Any] | None = None,
        *,
        train_batch_size: int | None = None,
        batch_size: int | None = None,
        val_dataset: Dataset[Any] | None = None,
        val_split: float = 0.0,
        val_gyms: Gym | str | list[Gym | str] | dict[str, Gym | str] | None = None,
        num_rollouts_val: int = 10,
        val_start_seed: int = VAL_START_SEED,
        test_gyms: Gym | str | list[Gym | str] | dict[str, Gym | str] | None = None,
        num_rollouts_test: int = 10,
        test_start_seed: int = TEST_START_SEED,
        max_episode_steps: int | None = None,
        num_envs: int = 1,
        async_envs: bool = False,
        num_workers: int | Literal["auto"] = "auto",
        delta_timestamps: dict[str, list[float]] | None = None,
        seed: int = 1000,
        use_imagenet_stats: bool = True,
        gather: bool | Literal["auto"] = "auto",
        cache: CacheLimits | None = None,
    ) -> None:
        super().__init__()
        if train_batch_size is not None and batch_size is not None:
            raise GetiactionError(
                "batch_size is another name of train_batch_size; give one of the two"
            )
        size = train_batch_size if batch_size is None else batch_size
        self.train_batch_size = DEFAULT_BATCH_SIZE if size is None else size
        if self.train_batch_size < 1:
            raise GetiactionError(f"the batch size is {size}; expected at least 1")
        if not 0 <= val_split < 1:
            raise GetiactionError(f"val_split is {val_split}; expected a share from 0 to below 1")
        if val_split and val_dataset is not None:
            raise GetiactionError("give either val_dataset or val_split, not both")
        counts = {
            "num_envs": num_envs,
            "num_rollouts_val": num_rollouts_val,
            "num_rollouts_test": num_rollouts_test,
        }
        for name, count in counts.items():
            if count < 1:
                raise GetiactionError(f"{name} is {count}; expected at least 1")
        self.val_split = val_split
        self.seed = seed
        self.use_imagenet_stats = use_imagenet_stats
        self.delta_timestamps = delta_timestamps
        self.val_gyms, self.test_gyms = named_gyms(val_gyms), named_gyms(test_gyms)
        self.num_rollouts_val, self.num_rollouts_test = num_rollouts_val, num_rollouts_test
        self.val_start_seed, self.test_start_seed = val_start_seed, test_start_seed
        self.max_episode_steps = max_episode_steps
        self.num_envs, self.async_envs = num_envs, async_envs
        # More processes than episodes leave some of them without any.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._num_workers = num_workers
        self._gather = gather
        self._cache = cache or CacheLimits()
        self._given = _source(train_dataset)
        self._given_val = _source(val_dataset)
        self._meta: Any = None
        self._config: PreTrainedConfig | None = None
        self._train: Dataset[Any] | None = None
        self._val: Dataset[Any] | None = None
        self._sampler: ResumableSampler | None = None

    # What NativeCheckpoint notes down of the data.

    @property
    def root(self) -> Path | None:
        """Directory of the dataset, if it has one."""
        return Path(self._given.root) if isinstance(self._given, LeRobotDataset) else None

    @property
    def repo_id(self) -> str:
        """LeRobot's name of the dataset."""
        return self._given.repo_id if isinstance(self._given, LeRobotDataset) else "local"

    @property
    def episodes(self) -> list[int] | None:
        """Episode indices in use; None stands for all."""
        return self._given.episodes if isinstance(self._given, LeRobotDataset) else None

    @property
    def tolerance_s(self) -> float:
        """How far a frame may lie from the time asked for, in seconds."""
        return self._given.tolerance_s if isinstance(self._given, LeRobotDataset) else 1e-4

    @property
    def video_backend(self) -> str | None:
        """LeRobot's name of the video decoder."""
        return self._given._video_backend if isinstance(self._given, LeRobotDataset) else None

    @property
    def batch_size(self) -> int:
        """Another name of ``train_batch_size``, by which Lightning's tuner sets it."""
        return self.train_batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.train_batch_size = size

    @property
    def meta(self) -> Any:
        """LeRobot's metadata of the dataset, with the statistics to normalise by.

        Raises:
            GetiactionError: there is none, or its statistics are not whole.
        """
        if self._meta is None:
            self._meta = with_statistics(
                self._read_meta(), use_imagenet_stats=self.use_imagenet_stats
            )
        return self._meta

    def _read_meta(self) -> Any:
        if not isinstance(self._given, LeRobotDataset):
            raise GetiactionError(
                "the training dataset is no LeRobotDataset, so the policy's features and "
                "statistics cannot be taken from it; give them to the policy"
            )
        return self._given.meta

    @property
    def train_dataset(self) -> Any:
        """What is trained on: as given at first, with the policy's frames once it is set up."""
        return self._given if self._train is None else self._train

    @property
    def val_dataset(self) -> Any:
        """What is held out; None if nothing is, or before it is set up."""
        return self._given_val if self._val is None else self._val

    @property
    def num_workers(self) -> int:
        """Worker processes of the training loader."""
        if self._num_workers != "auto":
            return self._num_workers
        return 0 if isinstance(self._train, GatheredDataset) else DEFAULT_WORKERS

    @property
    def sampler(self) -> ResumableSampler:
        """The order of training samples."""
        assert self._sampler is not None
        return self._sampler

    def setup(self, stage: str) -> None:
        """Open what the stage needs, for the policy that the trainer has."""
        self._require_own_sharding()
        if stage == "test":
            return
        config = getattr(getattr(self.trainer, "lightning_module", None), "config", None)
        self._take(config if isinstance(config, PreTrainedConfig) else None)
        held_out = bool(self.val_split) or self._given_val is not None
        if stage == "fit" or (stage == "predict" and not held_out):
            self._open_train()
        self._open_val()

    def prepare(self, config: PreTrainedConfig) -> None:
        """Open the datasets with the delta timestamps that the policy ``config`` asks for."""
        self._take(config)
        self._open_train()
        self._open_val()

    def _take(self, config: PreTrainedConfig | None) -> None:
        """Remember the policy's config; what was opened for one with other samples is dropped."""
        if _samples(config) != _samples(self._config):
            self._train = self._val = None
        self._config = config

    def _open_train(self) -> None:
        if self._train is not None:
            return
        if self._has_lerobot_source():
            deltas = self._deltas()
            train_episodes, _ = split_episodes(self.meta, self.episodes, self.val_split)
            self._train = self._held(self._open(train_episodes, deltas, training=True))
        else:
            self._train = self._given
        if self._train is None:
            raise GetiactionError(
                "there is nothing to train on: give the data module a train_dataset"
            )
        self._sampler = self._make_sampler(self._train)

    def _open_val(self) -> None:
        if self._val is not None:
            return
        if isinstance(self._given_val, LeRobotDataset):
            given = self._given_val
            deltas = self._deltas(given.meta, given.delta_timestamps)
            self._val = self._held(
                reopen(given, episodes=given.episodes, deltas=deltas, image_transforms=None)
            )
        elif self._given_val is not None:
            self._val = self._given_val
        elif self.val_split and self._has_lerobot_source():
            deltas = self._deltas()
            _, held_out = split_episodes(self.meta, self.episodes, self.val_split)
            self._val = self._held(self._open(held_out, deltas, training=False))
        elif self.val_split:
            raise GetiactionError(
                "val_split holds out episodes of a LeRobotDataset; give other datasets' held-out "
                "part as val_dataset"
            )

    def _has_lerobot_source(self) -> bool:
        return isinstance(self._given, LeRobotDataset)

    def _given_deltas(self) -> DeltaTimestamps | None:
        return getattr(self._given, "delta_timestamps", None)

    def _deltas(
        self, meta: Any = None, own: DeltaTimestamps | None = None
    ) -> DeltaTimestamps | None:
        """The policy's delta timestamps; what was given is compared with them."""
        meta = meta or self.meta
        sources = [d for d in (self.delta_timestamps, own or self._given_deltas()) if d]
        if self._config is None:
            if not sources:
                raise GetiactionError(
                    "the data module needs a LeRobot policy to know which frames a sample spans; "
                    "fit a LeRobotPolicy, or call prepare(config)"
                )
            return sources[0]
        needed = deltas_of(self._config, meta)
        for given in sources:
            require_deltas(given, needed, meta.fps)
        return needed

    def _open(
        self, episodes: list[int] | None, deltas: DeltaTimestamps | None, *, training: bool
    ) -> LeRobotDataset:
        given: Any = self._given
        return reopen(
            given,
            episodes=episodes,
            deltas=deltas,
            image_transforms=given.image_transforms if training else None,
        )

    def _held(self, dataset: LeRobotDataset) -> Dataset[Any]:
        """The dataset as arrays, if that is wanted and possible."""
        reason = "gather=False" if self._gather is False else why_not_gathered(dataset, self._cache)
        if reason is None:
            return GatheredDataset(dataset, self._cache)
        if self._gather is True:
            raise GetiactionError(f"the dataset cannot be held as arrays: {reason}")
        if self._gather == "auto":
            logger.info("reading the dataset item by item: %s", reason)
        opened: Dataset[Any] = dataset
        return opened

    def _make_sampler(self, dataset: Any) -> ResumableSampler | None:
        if isinstance(dataset, IterableDataset):
            return None
        # Lightning's overfit_batches stands for the same few batches in each epoch.
        shuffle = not getattr(self.trainer, "overfit_batches", 0)
        opened = dataset.dataset if isinstance(dataset, GatheredDataset) else dataset
        if not isinstance(opened, LeRobotDataset):
            return ResumableSampler([0], [len(opened)], shuffle=shuffle, seed=self.seed)
        return ResumableSampler(
            opened.meta.episodes["dataset_from_index"],
            opened.meta.episodes["dataset_to_index"],
            episode_indices_to_use=opened.episodes,
            drop_n_last_frames=getattr(self._config, "drop_n_last_frames", 0),
            shuffle=shuffle,
            seed=self.seed,
            absolute_to_relative_idx=opened.absolute_to_relative_idx,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch); draws its workers' seed from the global RNG, as natively."""
        assert self._train is not None
        if self._sampler is None:
            return DataLoader(self._train, self.train_batch_size, num_workers=self.num_workers)
        return training_loader(
            self._train,
            self._sampler,
            self.train_batch_size,
            workers=self.num_workers,
            world_size=self._world_size,
            rank=self._rank,
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """The held-out samples in order, if there are any, then the rollouts of each gym."""
        loaders = [] if self._val is None else [self._in_order(self._val)]
        loaders += self._rollouts(self.val_gyms, self.num_rollouts_val, self.val_start_seed)
        if not loaders and self._asked_for(TrainerFn.VALIDATING):
            raise GetiactionError(
                "there is nothing to validate on: give the data module val_gyms, val_split or "
                "val_dataset"
            )
        return loaders

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """The rollouts of each gym to test in."""
        loaders = self._rollouts(self.test_gyms, self.num_rollouts_test, self.test_start_seed)
        if not loaders and self._asked_for(TrainerFn.TESTING):
            raise GetiactionError("there is nothing to test on: give the data module test_gyms")
        return loaders

    def predict_dataloader(self) -> DataLoader[Any]:
        """The held-out samples in order, or else the training samples in order."""
        dataset = self._train if self._val is None else self._val
        if dataset is None:
            raise GetiactionError("there is nothing to predict on: give the data module a dataset")
        return self._in_order(dataset)

    def _in_order(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        if isinstance(dataset, IterableDataset):
            return DataLoader(dataset, self.train_batch_size, collate_fn=collate_for(dataset))
        return evaluation_loader(
            dataset,
            self.train_batch_size,
            seed=self.seed,
            world_size=self._world_size,
            rank=self._rank,
        )

    def _rollouts(self, gyms: dict[str, Any], count: int, seed: int) -> list[DataLoader[Any]]:
        return [
            rollout_loader(
                GymDataset(
                    gym,
                    count,
                    num_envs=self.num_envs,
                    start_seed=seed,
                    name=name,
                    max_steps=self.max_episode_steps,
                    async_envs=self.async_envs,
                    world_size=self._world_size,
                    rank=self._rank,
                )
            )
            for name, gym in gyms.items()
        ]

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def _asked_for(self, stage: TrainerFn) -> bool:
        return self.trainer is not None and self.trainer.state.fn == stage

    def _require_own_sharding(self) -> None:
        connector: Any = getattr(self.trainer, "_accelerator_connector", None)
        if self._world_size > 1 and getattr(connector, "use_distributed_sampler", False):
            raise GetiactionError(
                "the loaders are dealt to the processes already; use getiaction.train.Trainer, or "
                "Lightning's with use_distributed_sampler=False"
            )


def _samples(config: Any) -> tuple[Any, ...]:
    """What of a policy's config decides which samples there are and what is in them."""
    names = ("observation_delta_indices", "action_delta_indices", "reward_delta_indices")
    return tuple(getattr(config, name, None) for name in (*names, "drop_n_last_frames"))


def _source(dataset: Any) -> Any:
    """The dataset that was given, without what another data module put around it."""
    if isinstance(dataset, GatheredDataset):
        dataset = dataset.dataset
    if isinstance(dataset, LeRobotDataset):
        require_episodes(dataset.episodes, dataset.meta.total_episodes)
    return dataset
