"""Encode every episode of a dataset, in this process or in several; each is durable when done."""

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

# The directory of an episode, or the source and the reason why it had to be refused.
Outcome = Path | tuple[str, str]
Work = tuple[Dataset, Recipe, Path]

# Episodes handed out before the first of them is asked for, per worker: results wait on the disk.
AHEAD = 16

_job: Work | None = None


@contextmanager
def encoding(
    dataset: Dataset, recipe: Recipe, episodes: Path, workers: int | None
) -> Iterator[Iterator[Outcome]]:
    """Encode the episodes that are not yet in the directory ``episodes``; give all, in order.

    Workers begin at once, whenever the first outcome is asked for. ``workers`` processes share the
    work, 0 is this process; by default one per processor if there are images, and this one if
    there are none, since starting a process takes longer than an episode.

    Raises:
        OSError, StorageError: the machine or the storage failed, not an episode; what is done
            stays done.
    """
    work = dataset, recipe, episodes
    done = set(stored_episode.done(episodes))
    todo = [index for index in range(len(dataset)) if index not in done]
    images = any(feature["dtype"] == "video" for feature in recipe.codec.features.values())
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if images else 0
    workers = min(workers, len(todo))
    if workers == 0 or not _can_travel(work):
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
    """Worker processes on a list of episodes. One that a worker dies of is tried again alone."""

    def __init__(self, work: Work, todo: Sequence[int], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._todo = iter(todo)
        self._handed: dict[int, Future[Outcome]] = {}
        self._open = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Processes":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def outcome(self, index: int) -> Outcome:
        """Wait for an episode; those before it must have been asked for."""
        try:
            outcome = self._handed[index].result()
        except BrokenProcessPool:
            self._open.close()
            outcome = _alone(self._work, index)
            del self._handed[index]
            self._start()
            return outcome
        del self._handed[index]
        self._hand_out()
        return outcome

    def _start(self) -> None:
        self._pool = self._open.enter_context(worker_pool(self._workers, _start, self._work))
        for index, future in self._handed.items():
            if not future.done() or future.cancelled() or future.exception() is not None:
                self._submit(index)
        self._hand_out()

    def _hand_out(self) -> None:
        free = AHEAD * self._workers - len(self._handed)
        for index in islice(self._todo, max(0, free)):
            self._submit(index)

    def _submit(self, index: int) -> None:
        assert self._pool is not None
        try:
            self._handed[index] = self._pool.submit(_attempt_here, index)
        except BrokenProcessPool as error:  # it shows when this episode is asked for
            self._handed[index] = Future()
            self._handed[index].set_exception(error)


def _alone(work: Work, index: int) -> Outcome:
    """Encode the one episode in a process of its own, since a worker died at it or beside it."""
    try:
        with worker_pool(1, _start, work) as pool:
            return pool.submit(_attempt_here, index).result()
    except BrokenProcessPool:
        why = "its worker was killed, twice: out of memory, or a decoder's fault"
        return _source(work[0], index), why


def _source(dataset: Dataset, index: int) -> str:
    try:
        return source_of(dataset[index])
    except FoundationError:
        return f"episode {index}"


def _attempt(work: Work, index: int) -> Outcome:
    """Encode one episode; what goes wrong is its own fault, unless it is the machine's."""
    dataset, recipe, episodes = work
    source = f"episode {index}"
    scratch = stored_episode.unfinished(episodes, index)
    folder = stored_episode.numbered(episodes, index)
    try:
        episode = dataset[index]
        source = source_of(episode)
        stored_episode.save(encode_episode(episode, recipe, scratch), scratch, folder)
    except OSError as error:
        # PyAV's own kinds of it do not travel between processes.
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


def _can_travel(work: Work) -> bool:
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False  # derived by a local function, say: then it stays in this process
    return True


def _start(work: Work) -> None:
    global _job
    _job = work


def _attempt_here(index: int) -> Outcome:
    assert _job is not None
    return _attempt(_job, index)
