"""Parallel rollouts in worker processes, each with its own environment and connection."""

import os
import pickle
import shutil
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import FoundationError, UsageError
from foundation.stopping import DeferredInterrupts
from foundation.worker_pool import environment, worker_pool
from positronic.errors import SimulationError
from positronic.inference.results import EpisodeResult
from positronic.inference.rollout import Harness
from positronic.inference.run import Played
from positronic.inference.setting import Rollout, Setting
from positronic.inference.video import VideoDirectory
from positronic.policy import Policy


@dataclass(frozen=True)
class Job:
    """Arguments of every worker; recordings are staged in ``root``, videos go to ``videos``."""

    policy: Policy
    setting: Setting
    count: int
    root: Path | None = None
    videos: VideoDirectory | None = None


def require_sendable(policy: Policy) -> None:
    """Check that a policy can be pickled for other processes; one with weights here cannot.

    A copy of the weights in every worker would multiply the memory, and each would compute batches
    of one; a server has the weights once and batches the requests of all workers.

    Raises:
        UsageError: it cannot; the message says how to serve it.
    """
    try:
        pickle.dumps(policy)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise UsageError(
            "--num_envs above 1 needs a policy on a server, which batches all requests: start"
            " `python -m positronic.vendors.lerobot.server --checkpoints_dir=...` and give"
            " --policy=.remote"
        ) from error


def play_at_once(
    job: Job, plan: Sequence[Rollout], num_envs: int, interrupts: DeferredInterrupts
) -> Iterator[Played]:
    """Play rollouts in ``num_envs`` processes and yield them as they end.

    After an error in one rollout, running ones finish and no more are started. If a process dies,
    only the rollout that it was playing is lost.

    Raises:
        Exception: An error before a rollout began, raised after the others have finished.
        KeyboardInterrupt: Interrupted; the rollouts that were running have been yielded.
    """
    with ExitStack() as stack:
        # Inherited by the workers, each of which would otherwise use one thread per CPU.
        stack.enter_context(environment(OMP_NUM_THREADS="1", LP_NUM_THREADS="1"))
        pools = [
            stack.enter_context(worker_pool(1, _open, job)) for _ in range(min(num_envs, len(plan)))
        ]
        yield from _WorkerPool(pools, plan, job).play(interrupts)


class _WorkerPool:
    """The workers and the rollout that each is playing.

    Each is a pool of one process, because a pool drops all its work when one process dies.
    """

    def __init__(
        self, pools: Sequence[ProcessPoolExecutor], plan: Sequence[Rollout], job: Job
    ) -> None:
        self._waiting = deque(plan)
        self._job = job
        self._pids = {pool: pool.submit(os.getpid) for pool in pools}
        self._playing: dict[Future[Played], tuple[ProcessPoolExecutor, Rollout]] = {}
        self._error: BaseException | None = None

    def play(self, interrupts: DeferredInterrupts) -> Iterator[Played]:
        for pool in self._pids:
            self._next(pool)
        while self._playing:
            try:
                with interrupts.allowed():
                    over, _ = wait(self._playing, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as error:
                self._error = self._error or error
                self._interrupt()
                continue
            for future in over:
                yield from self._collect(future)
        if self._error is not None:
            raise self._error

    def _next(self, pool: ProcessPoolExecutor) -> None:
        if self._waiting and self._error is None:
            rollout = self._waiting.popleft()
            self._playing[pool.submit(_work, rollout)] = (pool, rollout)

    def _collect(self, future: Future[Played]) -> Iterator[Played]:
        pool, rollout = self._playing.pop(future)
        try:
            played = future.result()
        except BrokenProcessPool:
            self._clean_up(pool, rollout)
            yield _lost(rollout)
            return
        except (KeyboardInterrupt, Exception) as error:
            self._error = self._error or error
            return
        first = self._error
        if isinstance(first, KeyboardInterrupt) and isinstance(played.cause, KeyboardInterrupt):
            # Report the signal that this process received, not the SIGTERM passed to the worker.
            played = played._replace(cause=first)
        self._error = first or played.cause
        self._next(pool)
        yield played

    def _interrupt(self) -> None:
        for pool, _ in self._playing.values():
            self._pids[pool].add_done_callback(_terminate)

    def _clean_up(self, pool: ProcessPoolExecutor, rollout: Rollout) -> None:
        """Remove the unfinished recording and video of a dead process."""
        pid = self._pids[pool]
        if self._job.videos is not None:
            self._job.videos.discard(rollout.index)
        if self._job.root is None or pid.exception() is not None:
            return
        from positronic.dataset.recorded import META
        from positronic.dataset.writer import STAGING

        for staged in self._job.root.glob(f"{STAGING}{pid.result()}-*"):
            # With meta.json it is complete: an earlier rollout that waits to be published.
            if not (staged / META).exists():
                shutil.rmtree(staged, ignore_errors=True)


def _terminate(pid: Future[int]) -> None:
    if pid.exception() is None:
        with suppress(ProcessLookupError):
            os.kill(pid.result(), signal.SIGTERM)


def _lost(rollout: Rollout) -> Played:
    error = SimulationError(
        f"the process that played seed {rollout.seed} died (killed, or out of memory?);"
        " use fewer --num_envs if memory is short"
    )
    result = EpisodeResult(
        seed=rollout.seed,
        ended_by="error",
        steps=0,
        total_reward=0.0,
        initial_state="",
        final_state="",
        delay=rollout.delay,
        error=str(error),
    )
    return Played(rollout, result, error, {})


_job: Job | None = None
_harness: Harness | None = None
_interrupts = DeferredInterrupts()


def _open(job: Job) -> None:
    global _job
    _job = job
    # Ctrl-C in a terminal reaches the workers too; each ends its own rollout.
    _interrupts.__enter__()


def _work(rollout: Rollout) -> Played:
    assert _job is not None
    harness = _get_harness(_job)
    result, cause = harness.play(rollout, _job.count)
    return Played(rollout, result, None if cause is None else _picklable(cause), harness.meta)


def _get_harness(job: Job) -> Harness:
    """The harness of this process, created by the first rollout so that errors reach the parent."""
    global _harness
    if _harness is None:
        writer = None
        if job.root is not None:
            from positronic.dataset import DatasetWriter

            writer = DatasetWriter(job.root)
        _harness = Harness(
            env=job.setting.open_env(),
            policy=job.policy,
            setting=job.setting,
            writer=writer,
            videos=job.videos,
            interrupts=_interrupts,
            publish=False,
        )
    return _harness


def _picklable(cause: BaseException) -> BaseException:
    """The exception, or a RuntimeError if it cannot be pickled; bugs get a traceback note."""
    if not isinstance(cause, KeyboardInterrupt | FoundationError | OSError):
        cause.add_note("".join(traceback.format_exception(cause)))
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: TID251 - what this line has pickled
    except Exception:
        return RuntimeError("".join(traceback.format_exception(cause)))
    return cause
