"""Encode every episode of a dataset, in this process or in several, each stored when done."""

import os
import pickle
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from foundation.errors import FoundationError, StorageError
from foundation.worker_pool import worker_pool
from positronic.dataset import Dataset
from positronic.vendors.lerobot.conversion import stored_episode
from positronic.vendors.lerobot.conversion.encode_episode import Recipe, encode_episode, source_of

# The directory of a stored episode, or source and reason of a refused one.
Outcome = Path | tuple[str, str]
Work = tuple[Dataset, Recipe, Path]

# Episodes submitted ahead, per worker; results are on the disk.
AHEAD = 16

_job: Work | None = None


@contextmanager
def encoding(
    dataset: Dataset, recipe: Recipe, episodes: Path, workers: int | None
) -> Iterator[Iterator[Outcome]]:
    """Encode the episodes not yet stored in the directory ``episodes``; yield all, in order.

    Workers start at once, before the first outcome is requested. ``workers`` is the number of
    processes, 0 for this one; by default one per CPU if there are images, else this one, since
    starting a process takes longer than encoding an episode without images.

    Raises:
        OSError, StorageError: the machine or the storage failed, not an episode; stored episodes
            are kept.
    """
    work = dataset, recipe, episodes
    done = set(stored_episode.done(episodes))
    todo = [index for index in range(len(dataset)) if index not in done]
    images = any(feature["dtype"] == "video" for feature in recipe.codec.features.values())
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if images else 0
    workers = min(workers, len(todo))
    if workers == 0 or not _is_picklable(work):
        yield (
            stored_episode.numbered(episodes, index) if index in done else _attempt(work, index)
            for index in range(len(dataset))
        )
        return
    with _Processes(work, todo, workers) as processes:
        yield (
            stored_episode.numbered(episodes, index) if index in done else processes.outcome(index)
            for index in range(len(dataset))
        )


class _Processes:
    """Worker processes for a list of episodes. An episode whose worker died is retried alone."""

    def __init__(self, work: Work, todo: Sequence[int], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._todo = iter(todo)
        self._submitted: dict[int, Future[Outcome]] = {}
        self._open = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Processes":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def outcome(self, index: int) -> Outcome:
        """Wait for an episode; call in order."""
        try:
            outcome = self._submitted[index].result()
        except BrokenProcessPool:
            self._open.close()
            outcome = _retry_alone(self._work, index)
            del self._submitted[index]
            self._start()
            return outcome
        del self._submitted[index]
        self._submit_more()
        return outcome

    def _start(self) -> None:
        self._pool = self._open.enter_context(worker_pool(self._workers, _start, self._work))
        for index, future in self._submitted.items():
            if not future.done() or future.cancelled() or future.exception() is not None:
                self._submit(index)
        self._submit_more()

    def _submit_more(self) -> None:
        free = AHEAD * self._workers - len(self._submitted)
        for index in islice(self._todo, max(0, free)):
            self._submit(index)

    def _submit(self, index: int) -> None:
        assert self._pool is not None
        try:
            self._submitted[index] = self._pool.submit(_attempt_here, index)
        except BrokenProcessPool as error:  # raised when this episode's outcome is requested
            self._submitted[index] = Future()
            self._submitted[index].set_exception(error)


def _retry_alone(work: Work, index: int) -> Outcome:
    """Encode one episode in its own process, after a worker died."""
    try:
        with worker_pool(1, _start, work) as pool:
            return pool.submit(_attempt_here, index).result()
    except BrokenProcessPool:
        why = "its worker process died twice: out of memory, or a crash of the video decoder"
        return _source(work[0], index), why


def _source(dataset: Dataset, index: int) -> str:
    try:
        return source_of(dataset[index])
    except FoundationError:
        return f"episode {index}"


def _attempt(work: Work, index: int) -> Outcome:
    """Encode one episode; errors become its outcome, except OSError and StorageError."""
    dataset, recipe, episodes = work
    source = f"episode {index}"
    scratch = stored_episode.unfinished(episodes, index)
    folder = stored_episode.numbered(episodes, index)
    try:
        episode = dataset[index]
        source = source_of(episode)
        stored_episode.save(encode_episode(episode, recipe, scratch), scratch, folder)
    except OSError as error:
        # PyAV's subclasses cannot be pickled.
        raise OSError(error.errno, error.strerror or str(error), error.filename) from error
    except StorageError:
        raise
    except FoundationError as error:
        return source, str(error).removeprefix(f"episode {source}: ")
    except Exception as error:
        return source, f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _is_picklable(work: Work) -> bool:
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False  # e.g. derived by a local function: encoded in this process
    return True


def _start(work: Work) -> None:
    global _job
    _job = work


def _attempt_here(index: int) -> Outcome:
    assert _job is not None
    return _attempt(_job, index)
