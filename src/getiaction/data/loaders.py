"""DataLoaders that resume where they were stopped, and leave the global random state alone."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from foundation.stopping import ignore_terminal
from getiaction.data.frames import THREADS
from getiaction.data.gather import Batch, GatheredDataset, collate_for
from getiaction.data.prefetch import prefetched

# LeRobot's default; more than there are processors would only take turns.
DEFAULT_WORKERS = THREADS
# Batches made ahead by threads.
AHEAD = 2 * THREADS
# LeRobot's own defaults for worker processes; spawn because decoders do not survive a fork.
WORKER_OPTIONS = {"prefetch_factor": 4, "persistent_workers": True}


class RankBatches(BatchSampler):
    """Batches of one process, dealt as Accelerate deals them in native training.

    Of each ``world_size`` batches in a row, process ``rank`` gets the one at its place. Where they
    do not come out even, the last ones are filled from the epoch's beginning, so that every process
    takes the same number of steps; a single process has a smaller last batch instead.

    Args:
        sampler: The order of samples.
        batch_size: Samples a batch.
        drop_last: Must be False, as natively; Lightning passes it on.
        world_size: Number of processes.
        rank: This one's index.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        batch_size: int,
        drop_last: bool = False,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.world_size = world_size
        self.rank = rank
        self._skip = 0

    def skip(self, batches: int) -> None:
        """Leave out that many batches at the beginning of the next iteration."""
        self._skip = batches

    def __iter__(self) -> Iterator[list[int]]:
        skip, self._skip = self._skip, 0
        for at, batch in enumerate(self._dealt()):
            if at >= skip:
                yield batch

    def _dealt(self) -> Iterator[list[int]]:
        whole = BatchSampler(self.sampler, self.batch_size, self.drop_last)
        if self.world_size == 1:
            return iter(whole)
        return iter(BatchSamplerShard(whole, self.world_size, self.rank))

    def __len__(self) -> int:
        whole = BatchSampler(self.sampler, self.batch_size, self.drop_last)
        if self.world_size == 1:
            return len(whole)
        return len(BatchSamplerShard(whole, self.world_size, self.rank))


class Loader(DataLoader[Any]):
    """A loader whose batches are decoded ahead, by threads unless it has worker processes."""

    def __iter__(self) -> Any:
        dataset = self.dataset
        if self.num_workers or not (isinstance(dataset, GatheredDataset) and dataset.decodes):
            return super().__iter__()
        return self._decoded_ahead(dataset)

    def _decoded_ahead(self, dataset: GatheredDataset) -> Iterator[Batch]:
        # As torch's own iterators draw their seed, so that it makes no difference to what follows.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)

        def make(indices: list[int]) -> Batch:
            batch = dataset.__getitems__(indices)
            return _pinned(batch) if self.pin_memory else batch

        batches: Any = self.batch_sampler
        yield from prefetched(make, batches, threads=THREADS, ahead=AHEAD)


def _pinned(batch: Batch) -> Batch:
    return {
        key: value.pin_memory() if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


class ResumableLoader(Loader):
    """A training loader that knows how far it was read, and begins there after a restart.

    Its state is the epoch and the batches that were taken, not those that workers fetched ahead.
    Lightning keeps it in its checkpoints. The iteration begins with the first batch that is asked
    for, because Lightning tells the epoch after it has asked for the iterator.
    """

    _epoch = 0
    _taken = 0
    _resume: tuple[int, int] | None = None

    @property
    def _sampler(self) -> Any:
        batches: Any = self.batch_sampler
        return batches.sampler

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were taken."""
        return {"epoch": self._epoch, "taken": self._taken, "first_epoch": self._first_epoch()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin after the batches of ``state`` when its epoch comes; other epochs are whole."""
        sampler = self._sampler
        epoch, taken = state["epoch"], state["taken"]
        if taken >= len(self):
            epoch, taken = epoch + 1, 0
        if hasattr(sampler, "resume"):
            sampler.resume(epoch, 0, first_epoch=state["first_epoch"])
        self._resume = epoch, taken
        self._epoch, self._taken = epoch, taken

    def _first_epoch(self) -> int:
        return int(getattr(self._sampler, "first_epoch", 0))

    def __iter__(self) -> Any:
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        batches: Any = self.batch_sampler
        sampler = self._sampler
        epoch = int(getattr(sampler, "epoch", self._epoch))
        start = 0
        if self._resume is not None and self._resume[0] == epoch:
            start = self._resume[1]
        elif hasattr(sampler, "take_start_index"):
            start = sampler.take_start_index() // (batches.batch_size * batches.world_size)
        self._resume = None
        self._epoch, self._taken = epoch, start
        batches.skip(start)
        for batch in super().__iter__():
            self._taken += 1
            yield batch


def training_loader(
    dataset: Dataset[Any],
    sampler: Sampler[int],
    batch_size: int,
    *,
    workers: int,
    world_size: int = 1,
    rank: int = 0,
) -> ResumableLoader:
    """Batches in the order of ``sampler``.

    Its workers' seed is drawn from the global RNG, as natively.
    """
    return ResumableLoader(
        dataset,
        batch_sampler=RankBatches(sampler, batch_size, False, world_size, rank),
        **_options(dataset, workers),
    )


def evaluation_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    workers: int = 0,
    seed: int = 0,
    world_size: int = 1,
    rank: int = 0,
) -> DataLoader[Any]:
    """Batches in order, from a generator of the loader's own.

    Making an iterator draws a number; from the global generator, which feeds dropout, that would
    change the training that goes on afterwards.
    """
    # torch's type of a dataset says nothing of its length.
    sampler = torch.utils.data.SequentialSampler(dataset)  # type: ignore[arg-type]
    return Loader(
        dataset,
        batch_sampler=RankBatches(sampler, batch_size, False, world_size, rank),
        generator=torch.Generator().manual_seed(seed),
        **_options(dataset, workers),
    )


def _options(dataset: Dataset[Any], workers: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_workers": workers,
        "collate_fn": collate_for(dataset),
        "pin_memory": torch.cuda.is_available(),
    }
    if workers:
        options |= {
            **WORKER_OPTIONS,
            "multiprocessing_context": "spawn",
            "worker_init_fn": _leave_terminal_alone,
        }
    return options


def _leave_terminal_alone(worker: int) -> None:
    """Its signals go to all processes; what they mean is for the first one to say."""
    ignore_terminal()
