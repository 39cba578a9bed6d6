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
from positronic.inference.video import FilmDirectory
from positronic.policy import Policy


@dataclass(frozen=True)
class Job:
    """What every worker needs; recordings are staged in ``root``, films go to ``films``."""

    policy: Policy
    setting: Setting
    count: int
    root: Path | None = None
    films: FilmDirectory | None = None


def require_sendable(policy: Policy) -> None:
    """Refuse a policy that other processes cannot have, such as one with weights in this one.

    A copy of the weights in every worker would multiply the memory, and each would compute batches
    of one; a server has the weights once and batches what the workers ask.

    Raises:
        UsageError: says how to serve it.
    """
    try:
        pickle.dumps(policy)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise UsageError(
            "--num_envs above 1 needs a policy on a server, which batches for all of them: start"
            " `python -m positronic.vendors.lerobot.server --checkpoints_dir=...` and give"
            " --policy=.remote"
        ) from error


def play_at_once(
    job: Job, plan: Sequence[Rollout], num_envs: int, interrupts: DeferredInterrupts
) -> Iterator[Played]:
    """Play rollouts in ``num_envs`` processes and yield them as they end.

    Trouble in one rollout lets those under way end and starts no more. A process that dies costs
    the rollout that it was playing; the others play on.

    Raises:
        Exception: What kept a rollout from beginning, once the others are over.
        KeyboardInterrupt: Interrupted; what was under way has been yielded.
    """
    with ExitStack() as stack:
        # The workers inherit it; without, each would compute and render with a thread per CPU.
        stack.enter_context(environment(OMP_NUM_THREADS="1", LP_NUM_THREADS="1"))
        pools = [
            stack.enter_context(worker_pool(1, _open, job)) for _ in range(min(num_envs, len(plan)))
        ]
        yield from _Crew(pools, plan, job).play(interrupts)


class _Crew:
    """The workers and what each of them is playing.

    A pool of one process each, because a pool gives up all its work when one process dies.
    """

    def __init__(
        self, pools: Sequence[ProcessPoolExecutor], plan: Sequence[Rollout], job: Job
    ) -> None:
        self._waiting = deque(plan)
        self._job = job
        self._pids = {pool: pool.submit(os.getpid) for pool in pools}
        self._playing: dict[Future[Played], tuple[ProcessPoolExecutor, Rollout]] = {}
        self._trouble: BaseException | None = None

    def play(self, interrupts: DeferredInterrupts) -> Iterator[Played]:
        for pool in self._pids:
            self._next(pool)
        while self._playing:
            try:
                with interrupts.allowed():
                    over, _ = wait(self._playing, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as error:
                self._trouble = self._trouble or error
                self._interrupt()
                continue
            for future in over:
                yield from self._collect(future)
        if self._trouble is not None:
            raise self._trouble

    def _next(self, pool: ProcessPoolExecutor) -> None:
        if self._waiting and self._trouble is None:
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
            self._trouble = self._trouble or error
            return
        told = self._trouble
        if isinstance(told, KeyboardInterrupt) and isinstance(played.cause, KeyboardInterrupt):
            # By the signal that came here; this process passed another one on.
            played = played._replace(cause=told)
        self._trouble = told or played.cause
        self._next(pool)
        yield played

    def _interrupt(self) -> None:
        for pool, _ in self._playing.values():
            self._pids[pool].add_done_callback(_terminate)

    def _clean_up(self, pool: ProcessPoolExecutor, rollout: Rollout) -> None:
        """Remove what the dead process was recording."""
        pid = self._pids[pool]
        if self._job.films is not None:
            self._job.films.discard(rollout.index)
        if self._job.root is None or pid.exception() is not None:
            return
        from positronic.dataset.recorded import META
        from positronic.dataset.writer import STAGING

        for staged in self._job.root.glob(f"{STAGING}{pid.result()}-*"):
            # With it, it is whole: an earlier rollout that waits to be published.
            if not (staged / META).exists():
                shutil.rmtree(staged, ignore_errors=True)


def _terminate(pid: Future[int]) -> None:
    if pid.exception() is None:
        with suppress(ProcessLookupError):
            os.kill(pid.result(), signal.SIGTERM)


def _lost(rollout: Rollout) -> Played:
    error = SimulationError(
        f"the process that played seed {rollout.seed} died (killed, or out of memory?);"
        " give fewer --num_envs if memory is short"
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
    # Ctrl-C in a terminal reaches the workers too, and each ends its rollout by itself.
    _interrupts.__enter__()


def _work(rollout: Rollout) -> Played:
    assert _job is not None
    harness = _opened(_job)
    result, cause = harness.play(rollout, _job.count)
    return Played(rollout, result, None if cause is None else _portable(cause), harness.meta)


def _opened(job: Job) -> Harness:
    """The harness of this process; made by the first rollout, whose errors reach the parent."""
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
            films=job.films,
            interrupts=_interrupts,
            publish=False,
        )
    return _harness


def _portable(cause: BaseException) -> BaseException:
    """The same exception as other processes can have it; a bug brings its traceback along."""
    if not isinstance(cause, KeyboardInterrupt | FoundationError | OSError):
        cause.add_note("".join(traceback.format_exception(cause)))
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: TID251 - what this line has pickled
    except Exception:
        return RuntimeError("".join(traceback.format_exception(cause)))
    return cause
