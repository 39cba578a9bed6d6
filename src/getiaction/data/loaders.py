"""DataLoaders that resume where they were stopped, and preserve the global random state."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from foundation.stopping import ignore_terminal
from getiaction.data.frames import THREADS
from getiaction.data.gather import Batch, GatheredDataset, collate_for

# LeRobot's default, limited to the number of CPUs.
DEFAULT_WORKERS = THREADS
# Number of batches prefetched by threads.
AHEAD = 2 * THREADS
# LeRobot's defaults for worker processes; spawned, because decoders do not survive a fork.
WORKER_OPTIONS = {"prefetch_factor": 4, "persistent_workers": True}


def prefetched[Wanted, Made](
    make: Callable[[Wanted], Made], wanted: Iterable[Wanted], *, threads: int, ahead: int
) -> Iterator[Made]:
    """Yield ``make(w)`` for each ``w`` of ``wanted``, in order, while threads make the next ones.

    Args:
        make: Called in several threads concurrently.
        wanted: Iterated in the caller's thread.
        threads: Number of threads.
        ahead: Maximum number of items in progress, or finished but not consumed.
    """
    rest = iter(wanted)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    pending: deque[Future[Made]] = deque()
    try:
        for each in islice(rest, ahead):
            pending.append(pool.submit(make, each))
        while pending:
            made = pending.popleft().result()
            for each in islice(rest, 1):
                pending.append(pool.submit(make, each))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)


class RankBatches(BatchSampler):
    """Batches of one process, distributed as by Accelerate in native training.

    Of each ``world_size`` consecutive batches, process ``rank`` gets the one with that index. The
    last ones are filled from the start of the epoch if necessary, so that every process takes the
    same number of steps; a single process has a smaller last batch instead.

    Args:
        sampler: The order of samples.
        batch_size: Samples per batch.
        drop_last: Must be False, as in native training; Lightning passes it.
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
        """Skip that many batches at the start of the next iteration."""
        self._skip = batches

    def __iter__(self) -> Iterator[list[int]]:
        skip, self._skip = self._skip, 0
        for at, batch in enumerate(self._own_batches()):
            if at >= skip:
                yield batch

    def _own_batches(self) -> Iterator[list[int]]:
        sampled = BatchSampler(self.sampler, self.batch_size, self.drop_last)
        if self.world_size == 1:
            return iter(sampled)
        return iter(BatchSamplerShard(sampled, self.world_size, self.rank))

    def __len__(self) -> int:
        sampled = BatchSampler(self.sampler, self.batch_size, self.drop_last)
        if self.world_size == 1:
            return len(sampled)
        return len(BatchSamplerShard(sampled, self.world_size, self.rank))


class Loader(DataLoader[Any]):
    """A loader that prefetches decoded batches in threads, unless it has worker processes."""

    def __iter__(self) -> Any:
        dataset = self.dataset
        if self.num_workers or not (isinstance(dataset, GatheredDataset) and dataset.decodes):
            return super().__iter__()
        return self._prefetched(dataset)

    def _prefetched(self, dataset: GatheredDataset) -> Iterator[Batch]:
        # Draw a number as torch's own iterators do, so that the RNG's later state is the same.
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
    """A training loader that stores its position, and resumes there after a restart.

    Its state is the epoch and the number of batches consumed, not those prefetched by workers;
    Lightning stores it in checkpoints. Iteration starts only when the first batch is requested,
    because Lightning sets the epoch after creating the iterator.
    """

    _epoch = 0
    _taken = 0
    _resume: tuple[int, int] | None = None

    @property
    def _sampler(self) -> Any:
        batches: Any = self.batch_sampler
        return batches.sampler

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were consumed."""
        return {"epoch": self._epoch, "taken": self._taken, "first_epoch": self._first_epoch()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches of ``state`` in its epoch; other epochs are complete."""
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
    """Training batches in the order of ``sampler``.

    The workers' seed is drawn from the global RNG, as in native training.
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
    """Batches in order, with the loader's own random generator.

    Creating an iterator draws a random number; from the global generator, which dropout uses, this
    would change the training that follows.
    """
    # torch's type of a dataset has no __len__.
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
            "worker_init_fn": _ignore_terminal_signals,
        }
    return options


def _ignore_terminal_signals(worker: int) -> None:
    """Ignore signals that a terminal sends to all processes; the main process handles them."""
    ignore_terminal()
