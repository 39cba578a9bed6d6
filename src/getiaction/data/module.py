"""DataModule: Lightning data module with a training set, held-out episodes and gym rollouts."""

from pathlib import Path
from typing import Any, Literal

from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from getiaction.config import FromConfig
from getiaction.data.deltas import TOLERANCE_S, DeltaTimestamps, deltas_of, require_deltas
from getiaction.data.frame_cache import CacheLimits
from getiaction.data.gather import CACHES, Cache, GatheredDataset, as_arrays, collate_for
from getiaction.data.gym import GymDataset, named_gyms, rollout_loader
from getiaction.data.loaders import DEFAULT_WORKERS, evaluation_loader, training_loader
from getiaction.data.opening import with_statistics
from getiaction.data.sampler import ResumableSampler, sampler_of
from getiaction.data.sources import Source, source_of
from getiaction.data.splits import split_episodes
from getiaction.errors import GetiactionError
from getiaction.gyms import Gym

DEFAULT_BATCH_SIZE = 8
# Far apart, so that a policy is never tested on the seeds by which it was selected.
VAL_START_SEED, TEST_START_SEED = 1000, 100_000


class DataModule(FromConfig, LightningDataModule):
    """Batches of a dataset in the order of native LeRobot training, and rollouts in gyms.

    A ``LeRobotDataset`` is opened again with the delta timestamps that the policy needs; the given
    object is unchanged. Any other torch dataset is used as it is.

    Args:
        train_dataset: Training data; None if nothing is trained.
        train_batch_size: Samples per step and process, by default 8; the last batch of an epoch may
            be smaller.
        batch_size: Alias of ``train_batch_size``.
        val_dataset: Data for the validation loss.
        val_split: Share of the episodes held out for validation, the last ones of each task; each
            task keeps at least one for training.
        val_gyms: Environments for validation rollouts: a gym, a Gymnasium id, a list of these, or
            a dict by their names in metrics.
        num_rollouts_val: Episodes per gym and validation.
        val_start_seed: Seed of the first of them; the following are consecutive.
        test_gyms: Environments for rollouts in ``trainer.test``.
        num_rollouts_test: Episodes per gym.
        test_start_seed: Seed of the first of them.
        max_episode_steps: Steps after which an episode ends; the gym's own limit if None.
        num_envs: Number of parallel environments.
        async_envs: Step them in separate processes.
        num_workers: Worker processes; ``"auto"``: some for samples read one by one, else none.
        delta_timestamps: Seconds relative to the current frame, by key; by default the policy's,
            with which given ones are compared.
        seed: Determines, with the epoch, the order of samples.
        use_imagenet_stats: Normalise camera images by ImageNet's mean and standard deviation.
        gather: Gather batches from arrays; ``"auto"``: if that gives the same batches.
        cache: Cache of decoded camera frames: ``"memory"``; ``"disk"``, shared with other
            processes and later runs; ``"off"``, decoding when needed; ``"auto"``: memory if they
            fit, else off.
        cache_limits: Limits of the cache, and its directory.

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
        cache: Cache = "auto",
        cache_limits: CacheLimits | None = None,
    ) -> None:
        super().__init__()
        if train_batch_size is not None and batch_size is not None:
            raise GetiactionError("batch_size is an alias of train_batch_size; give one of the two")
        size = train_batch_size if batch_size is None else batch_size
        self.train_batch_size = DEFAULT_BATCH_SIZE if size is None else size
        if not 0 <= val_split < 1:
            raise GetiactionError(f"val_split is {val_split}; expected a share from 0 to below 1")
        if val_split and val_dataset is not None:
            raise GetiactionError("give either val_dataset or val_split, not both")
        counts = {
            "batch_size": self.train_batch_size,
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
        self._num_workers = num_workers
        self._gather = gather
        if cache not in CACHES:
            raise GetiactionError(f"cache is {cache!r}; expected one of {', '.join(CACHES)}")
        self._cache: Cache = cache
        self._cache_limits = cache_limits
        # Samples come from a LeRobot dataset, or unchanged from another torch dataset.
        self._source = source_of(train_dataset)
        self._other = train_dataset
        self._val_source = source_of(val_dataset)
        self._other_val = val_dataset
        self._meta: Any = None
        self._config: PreTrainedConfig | None = None
        self._train: Dataset[Any] | None = None
        self._val: Dataset[Any] | None = None
        self._sampler: ResumableSampler | None = None

    @property
    def batch_size(self) -> int:
        """Alias of ``train_batch_size``, which Lightning's tuner sets."""
        return self.train_batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.train_batch_size = size

    @property
    def meta(self) -> Any:
        """LeRobot's metadata of the dataset, with the statistics to normalise by.

        Raises:
            GetiactionError: there is no LeRobot dataset, or its statistics are incomplete.
        """
        if self._meta is None:
            if self._source is None:
                raise GetiactionError(
                    "there is no LeRobotDataset from which the policy could take its features and "
                    "statistics; give one, or give them to the policy"
                )
            self._meta = with_statistics(
                self._source.read_meta(), use_imagenet_stats=self.use_imagenet_stats
            )
        return self._meta

    # Properties of the data that NativeCheckpoint records.

    @property
    def root(self) -> Path | None:
        """Directory of the dataset; None if given by its repo id, or not a LeRobot dataset."""
        return None if self._source is None else self._source.root

    @property
    def repo_id(self) -> str:
        """LeRobot's name of the dataset."""
        return "local" if self._source is None else self._source.repo_id

    @property
    def episodes(self) -> list[int] | None:
        """Episode indices in use; None means all."""
        return None if self._source is None else self._source.episodes

    @property
    def tolerance_s(self) -> float:
        """Maximum difference between requested and found frame time, in seconds."""
        return TOLERANCE_S if self._source is None else self._source.tolerance_s

    @property
    def video_backend(self) -> str | None:
        """LeRobot's name of the video decoder."""
        return None if self._source is None else self._source.video_backend

    @property
    def train_dataset(self) -> Any:
        """The training set; before the policy is known, without delta timestamps."""
        if self._train is None and self._source is not None:
            return self._source.plain()
        return self._other if self._train is None else self._train

    @property
    def val_dataset(self) -> Any:
        """The validation set; before the policy is known, the given one."""
        return self._other_val if self._val is None else self._val

    @property
    def num_workers(self) -> int:
        """Worker processes of the training loader; without any, threads prefetch."""
        return self._workers_for(self._train)

    def _workers_for(self, dataset: Any) -> int:
        if self._num_workers != "auto":
            return self._num_workers
        return DEFAULT_WORKERS if isinstance(dataset, LeRobotDataset) else 0

    @property
    def sampler(self) -> ResumableSampler:
        """The order of training samples."""
        assert self._sampler is not None
        return self._sampler

    def split(self) -> tuple[list[int], list[int]]:
        """Return the indices of training and held-out episodes.

        Raises:
            GetiactionError: every task has only one episode, so ``val_split`` is impossible.
        """
        train, held_out = split_episodes(self.meta, self.episodes, self.val_split)
        return list(range(self.meta.total_episodes)) if train is None else train, held_out

    def state_dict(self) -> dict[str, Any]:
        """Return the state to checkpoint: the episodes held out by ``val_split``."""
        split = self._source is not None and self.val_split
        return {"held_out": self.split()[1]} if split else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a resumed run has the same held-out episodes.

        Raises:
            GetiactionError: ``val_split`` gives other held-out episodes now.
        """
        before, now = state_dict.get("held_out"), self.state_dict().get("held_out")
        if before is not None and now is not None and before != now:
            raise GetiactionError(
                f"the checkpoint was trained with {len(before)} other episodes held out than the "
                f"{len(now)} of val_split={self.val_split}: the dataset has changed; give the "
                "dataset, episodes and val_split that it was trained with"
            )

    def setup(self, stage: str) -> None:
        """Open the datasets of the stage, for the trainer's policy."""
        self._require_own_sharding()
        if stage == "test":
            return
        config = getattr(getattr(self.trainer, "lightning_module", None), "config", None)
        if isinstance(config, PreTrainedConfig):
            self._set_config(config)
        held_out = bool(self.val_split) or self._other_val is not None
        if stage == "fit" or (stage == "predict" and not held_out):
            self._open_train()
        self._open_val()

    def prepare(self, config: PreTrainedConfig) -> None:
        """Open the datasets with the delta timestamps of the policy ``config``."""
        self._set_config(config)
        self._open_train()
        self._open_val()

    def _set_config(self, config: PreTrainedConfig) -> None:
        """Set the policy's config; drop datasets opened for one with other samples."""
        if _samples(config) != _samples(self._config):
            self._train = self._val = None
        self._config = config

    def _open_train(self) -> None:
        if self._train is not None:
            return
        if self._source is not None:
            deltas = self._deltas(self._source, self.meta)
            episodes, _ = split_episodes(self.meta, self.episodes, self.val_split)
            self._train = self._as_arrays(self._source.open(episodes, deltas, training=True))
        elif self._other is not None:
            self._train = self._other
        else:
            raise GetiactionError(
                "there is nothing to train on: give the data module a train_dataset"
            )
        # Lightning's overfit_batches repeats the same few batches in each epoch.
        shuffle = not getattr(self.trainer, "overfit_batches", 0)
        drop = getattr(self._config, "drop_n_last_frames", 0)
        self._sampler = sampler_of(self._train, self.seed, shuffle=shuffle, drop_n_last_frames=drop)

    def _open_val(self) -> None:
        if self._val is not None:
            return
        if (source := self._val_source) is not None:
            deltas = self._deltas(source, source.read_meta())
            self._val = self._as_arrays(source.open(source.episodes, deltas, training=False))
        elif self._other_val is not None:
            self._val = self._other_val
        elif self.val_split and self._source is not None:
            deltas = self._deltas(self._source, self.meta)
            _, held_out = split_episodes(self.meta, self.episodes, self.val_split)
            self._val = self._as_arrays(self._source.open(held_out, deltas, training=False))
        elif self.val_split:
            raise GetiactionError(
                "val_split holds out episodes of a LeRobotDataset; give other datasets' held-out "
                "part as val_dataset"
            )

    def _as_arrays(self, opened: LeRobotDataset) -> Dataset[Any]:
        return as_arrays(opened, self._gather, self._cache, self._cache_limits)

    def _deltas(self, source: Source, meta: Any) -> DeltaTimestamps | None:
        """The policy's delta timestamps, after comparing given ones with them."""
        given = [deltas for deltas in (self.delta_timestamps, source.deltas) if deltas]
        if self._config is None:
            if not given:
                raise GetiactionError(
                    "the data module needs a LeRobot policy to know which frames a sample spans; "
                    "fit a LeRobotPolicy, or call prepare(config)"
                )
            return given[0]
        needed = deltas_of(self._config, meta)
        for deltas in given:
            require_deltas(deltas, needed, meta.fps)
        return needed

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch); workers' seed from the global RNG, as in native training."""
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
        """The held-out samples in order, if any, then the rollouts of each gym."""
        loaders = [] if self._val is None else [self._in_order(self._val)]
        loaders += self._rollouts(self.val_gyms, self.num_rollouts_val, self.val_start_seed)
        if not loaders and self._is_running(TrainerFn.VALIDATING):
            raise GetiactionError(
                "there is nothing to validate on: give the data module val_gyms, val_split or "
                "val_dataset"
            )
        return loaders

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """The rollouts of each test gym."""
        loaders = self._rollouts(self.test_gyms, self.num_rollouts_test, self.test_start_seed)
        if not loaders and self._is_running(TrainerFn.TESTING):
            raise GetiactionError("there is nothing to test on: give the data module test_gyms")
        return loaders

    def predict_dataloader(self) -> DataLoader[Any]:
        """The held-out samples in order, or else the training samples in order."""
        dataset = self._train if self._val is None else self._val
        if dataset is None:
            raise GetiactionError("there is nothing to predict on: give the data module a dataset")
        return self._in_order(dataset)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move a batch to the device; skipped on the CPU, as traversing the batch takes time."""
        if device.type == "cpu":
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _in_order(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        if isinstance(dataset, IterableDataset):
            return DataLoader(dataset, self.train_batch_size, collate_fn=collate_for(dataset))
        # Gathering is faster than transferring batches between processes.
        gathered = isinstance(dataset, GatheredDataset)
        return evaluation_loader(
            dataset,
            self.train_batch_size,
            workers=0 if gathered else self._workers_for(dataset),
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

    def _is_running(self, stage: TrainerFn) -> bool:
        return self.trainer is not None and self.trainer.state.fn == stage

    def _require_own_sharding(self) -> None:
        connector: Any = getattr(self.trainer, "_accelerator_connector", None)
        if self._world_size > 1 and getattr(connector, "use_distributed_sampler", False):
            raise GetiactionError(
                "the loaders already shard for each process; use getiaction.train.Trainer, or "
                "Lightning's with use_distributed_sampler=False"
            )


def _samples(config: Any) -> tuple[Any, ...]:
    """The fields of a policy's config that determine the samples."""
    names = ("observation_delta_indices", "action_delta_indices", "reward_delta_indices")
    return tuple(getattr(config, name, None) for name in (*names, "drop_n_last_frames"))
