"""``positronic-data-collection``: record demonstrations as a raw dataset."""

import os
import shutil
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import configuronic as cfn

from foundation import storage
from foundation.console import say_made
from foundation.errors import UsageError
from foundation.worker_pool import environment, worker_pool
from positronic import cli
from positronic.cli.following import say_convert
from positronic.cli.values import names
from positronic.errors import DatasetError, SimulationError

if TYPE_CHECKING:
    from positronic.simulator.demonstrations import Attempt, Recorder, Scenario

PROG = "positronic-data-collection"
# A lower success rate means a broken scene or wrong settings, not bad luck.
MIN_SUCCESS_RATE = 0.25
MIN_ATTEMPTS = 20


@dataclass
class Tally:
    """Counts of a recording run."""

    episodes: int = 0
    failures: int = 0
    steps: int = 0


def record(
    scenario: "Scenario",
    output_dir: Path,
    *,
    episodes: int,
    seed: int = 0,
    workers: int = 1,
    keep_failures: bool = False,
) -> Tally:
    """Record ``episodes`` successful demonstrations of ``scenario`` into ``output_dir``.

    Seeds are run upwards from ``seed`` in worker processes and published in their order, so the
    dataset does not depend on the number of workers. After an error or Ctrl-C, published episodes
    are kept and unfinished ones removed.

    Raises:
        SimulationError: the expert's success rate is below 25 %, or a worker process died.
    """
    from foundation.progress import bar
    from positronic.dataset import DatasetWriter

    writer = DatasetWriter(output_dir)
    tally = Tally()
    with (
        environment(OMP_NUM_THREADS="1", LP_NUM_THREADS="1"),
        bar(total=episodes, desc="recording", unit="ep") as progress,
    ):
        attempts = _attempts(scenario, writer.root, seed, workers, keep_failures)
        try:
            for attempt in attempts:
                if attempt.staged is not None:
                    writer.publish(attempt.staged)
                if attempt.success:
                    tally.episodes += 1
                    tally.steps += attempt.steps
                    progress.update()
                else:
                    tally.failures += 1
                    progress.set_postfix(failures=tally.failures, refresh=False)
                if tally.episodes == episodes:
                    return tally
                _check_rate(tally)
        finally:
            attempts.close()
    raise AssertionError("attempts do not end by themselves")


@cfn.config()
def scripted(
    output_dir: str,
    env: str = "stack_cubes",
    episodes: int = 100,
    workers: int = 0,
    seed: int = 0,
    cameras: Sequence[str] | str | None = ("image.wrist", "image.exterior"),
    image_size: int | Sequence[int] = (240, 320),
    noise: float = 0.003,
    mishaps: float = 0.0,
    speed: float = 0.25,
    keep_failures: bool = False,
    append: bool = False,
) -> None:
    """Record demonstrations by the scripted expert in simulation.

    Example:
        positronic-data-collection scripted --output_dir=RAW --episodes=100

    Args:
        output_dir: Directory of the raw dataset, local or s3://bucket/key; must be new or empty,
            unless append is set.
        env: Environment: stack_cubes or pick_place.
        episodes: Number of successful episodes to record.
        workers: Number of worker processes; 0: one per CPU.
        seed: First seed; the following seeds are used in order, failed ones are skipped.
        cameras: Image signals to record, or none for a quick recording without images.
        image_size: Height and width of the images; one number for square images.
        noise: Standard deviation in metres of the drift added to commanded positions.
        mishaps: Share of attempts, 0 to 1, with a deliberate mishap (a cube slips, is missed, is
            released too early, or the arm moves on without it), so that the demonstrations show
            recoveries.
        speed: Speed of the gripper in m/s.
        keep_failures: Record failed attempts too, with eval.success false.
        append: Add to an existing dataset, with seeds after those that it has.
    """
    count = _checked_counts(episodes, workers, seed)
    if speed <= 0:
        raise UsageError(f"--speed is {speed}; expected more than 0 m/s")
    if not 0 <= mishaps <= 1:
        raise UsageError(f"--mishaps is {mishaps}; expected a share, 0 to 1")
    options = {
        "cameras": names(cameras),
        "image_size": (image_size, image_size) if isinstance(image_size, int) else image_size,
        "command_noise": float(noise),
    }
    with storage.output_directory(output_dir, append=append) as root:
        first = _first_seed(root, seed, append)

        from positronic import simulator
        from positronic.simulator.demonstrations import Scenario
        from positronic.simulator.expert import make_expert

        # Reports invalid arguments, missing libraries and a task without an expert before any
        # worker starts, and puts the compiled scene into the cache for all of them.
        with closing(simulator.make(env, **options)) as opened:
            make_expert(opened, float(speed))
            fps = float(opened.get_wrapper_attr("control_fps"))
        started = time.monotonic()
        tally = record(
            Scenario(simulator.env_id(env), options, float(speed), float(mishaps)),
            root,
            episodes=episodes,
            seed=first,
            workers=count,
            keep_failures=keep_failures,
        )
        seconds = time.monotonic() - started
    kept = "recorded" if keep_failures else "not recorded"
    steps = tally.steps / tally.episodes
    print(
        f"recorded {tally.episodes} episodes ({steps:.0f} steps on average), "
        f"{tally.failures} failed attempts ({kept}); {seconds:.1f} s, "
        f"{tally.episodes / seconds:.1f} episodes/s"
    )
    place = storage.join(output_dir)
    say_made("recordings", place)
    say_convert(place, fps, cameras=bool(options["cameras"]))


def main() -> NoReturn:
    """Run the command line."""
    cli.run({"scripted": scripted}, PROG)


def _attempts(
    scenario: "Scenario", root: Path, seed: int, workers: int, keep_failures: bool
) -> Generator["Attempt"]:
    """Yield attempts in the order of their seeds, endlessly; clean up when closed."""
    pending: deque[Future[Attempt]] = deque()
    try:
        with worker_pool(workers, _open_worker, scenario, root) as pool:
            while True:
                # Two per worker: none waits for the slowest, and little work is wasted at the end.
                while len(pending) < 2 * workers:
                    pending.append(pool.submit(_work, seed, keep_failures))
                    seed += 1
                # Removed from pending only after the caller is done with it, so that its staged
                # episode is removed on an interruption.
                yield pending[0].result()
                pending.popleft()
    except BrokenProcessPool as error:
        raise SimulationError(
            "a recording process died (out of memory?); published episodes are kept; "
            "continue with --append=True and fewer --workers"
        ) from error
    finally:
        for future in pending:
            if future.done() and not future.cancelled() and future.exception() is None:
                _remove(future.result().staged)


_recorder: "Recorder | None" = None


def _open_worker(scenario: "Scenario", root: Path) -> None:
    global _recorder
    from positronic.dataset import DatasetWriter
    from positronic.simulator.demonstrations import Recorder

    _recorder = Recorder(scenario, DatasetWriter(root))


def _work(seed: int, keep_failures: bool) -> "Attempt":
    assert _recorder is not None
    return _recorder.attempt(seed, keep_failures)


def _remove(staged: Path | None) -> None:
    if staged is not None:
        shutil.rmtree(staged, ignore_errors=True)


def _check_rate(tally: Tally) -> None:
    attempts = tally.episodes + tally.failures
    if attempts >= MIN_ATTEMPTS and tally.episodes < MIN_SUCCESS_RATE * attempts:
        raise SimulationError(
            f"the expert succeeded in {tally.episodes} of {attempts} attempts; "
            "use less --noise or another --speed"
        )


def _first_seed(root: Path, seed: int, append: bool) -> int:
    """Return the first seed; DatasetError for a non-empty directory, unless appending."""
    if not root.is_dir() or not any(root.iterdir()):
        return seed
    if not append:
        raise DatasetError(
            f"{root} is not empty; give a new --output_dir, or --append=True to add to it"
        )
    from positronic.dataset import LocalDataset
    from positronic.dataset.subsets import described

    try:
        static = described(LocalDataset(root)).values()
    except DatasetError:  # no finished episode yet, e.g. after an interrupted run
        return seed
    recorded = [values.get("simulation.seed") for values in static if values is not None]
    return max([seed, *(number + 1 for number in recorded if isinstance(number, int))])


def _checked_counts(episodes: int, workers: int, seed: int) -> int:
    if episodes < 1:
        raise UsageError(f"--episodes is {episodes}; expected 1 or more")
    if workers < 0:
        raise UsageError(f"--workers is {workers}; expected 0 (one per CPU) or more")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; expected 0 or more")
    return min(workers or len(os.sched_getaffinity(0)), episodes)
