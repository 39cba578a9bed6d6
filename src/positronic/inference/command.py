"""``positronic-inference``: let a policy act, and see what comes of it."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import configuronic as cfn

import positronic.cfg.driver
import positronic.cfg.policy
from positronic import storage
from positronic.cli import run as run_command_line
from positronic.cli.values import names
from positronic.errors import UsageError

if TYPE_CHECKING:
    from positronic.inference.results import RunResult

# Demonstrations are recorded from seed 0 upwards; a policy is to be tried on other ones.
DEFAULT_SEED = 100_000
CAMERAS = ("image.wrist", "image.exterior")


@cfn.config(
    policy=positronic.cfg.policy.placeholder,
    driver=positronic.cfg.driver.timed,
    env="stack_cubes",
    output_dir=None,
    seed=DEFAULT_SEED,
    cameras=CAMERAS,
    image_size=(240, 320),
    report_videos=8,
)
def sim(
    policy: Any,
    driver: Any,
    env: str,
    output_dir: str | None,
    seed: int,
    cameras: Any,
    image_size: Any,
    report_videos: int,
) -> int:
    """Roll out a policy in simulation: record, count, report.

    Rollout i starts from the state that seed + i gives. With an output directory each rollout is
    added there as an episode of a raw dataset, and results.json and report.html tell of this run;
    those of an earlier run are kept beside them under its time. Ends with 0 when all rollouts were
    played, however they went.

    Args:
        policy: What acts; ``.remote`` is a policy on a server.
        driver: How many rollouts, how long, and who watches.
        env: The environment, ``stack_cubes`` or ``pick_place``.
        output_dir: Where to record, local or s3://bucket/key; nothing is kept if not given.
        seed: Seed of the first rollout.
        cameras: Image signals to render and record, separated by commas.
        image_size: Height and width of the images.
        report_videos: How many rollouts the report shows in full, failures first.
    """
    from positronic.inference.run import REPORT, write_files

    kept = (
        nullcontext() if output_dir is None else storage.output_directory(output_dir, append=True)
    )
    with kept as root:
        result, cause = _roll_out(root, policy, driver, env, seed, cameras, image_size)
        if root is not None and output_dir is not None:
            result.published = (root, storage.join(output_dir))
            write_files(result, root, report_videos)
    if output_dir is None:
        print("nothing was recorded; give --output_dir=DIR to keep episodes and a report")
    else:
        print(f"report {storage.join(output_dir, REPORT)}")
    if cause is not None:
        raise cause
    return 0


def _roll_out(
    root: Path | None,
    policy: Any,
    driver: Any,
    env: str,
    seed: int,
    cameras: Any,
    image_size: Any,
) -> "tuple[RunResult, BaseException | None]":
    """Play all rollouts; return what came of them, and what ended the run early."""
    from positronic import simulator
    from positronic.inference.interrupts import Interrupts
    from positronic.inference.live_view import open_live_view
    from positronic.inference.results import RunResult
    from positronic.inference.rollout import Harness
    from positronic.inference.run import now, play_all, summary_lines, versions

    env_id = simulator.env_id(env)
    writer = None
    if root is not None:
        from positronic.dataset import DatasetWriter

        writer = DatasetWriter(root)
    # The driver's clock ends a rollout, not the environment's own limit.
    world = simulator.make(
        env_id,
        cameras=names(cameras),
        image_size=_size(image_size),
        max_episode_steps=-1,
    )
    view = None
    if driver.show_gui:
        view, why = open_live_view()
        if view is None:
            print(f"no camera window: {why}; going on without", flush=True)
    inner: Any = world.unwrapped
    result = RunResult(
        env=env_id,
        task=driver.task or inner.task,
        seed=seed,
        num_iterations=driver.num_iterations,
        simulation_time=driver.simulation_time,
        control_fps=inner.control_fps,
        cameras=inner.cameras,
        image_size=inner.image_size,
        started=now(),
        command=tuple(_command_line()),
        versions=versions(),
    )
    try:
        with Interrupts() as interrupts:
            harness = Harness(
                env=world,
                policy=policy,
                simulation_time=driver.simulation_time,
                task=driver.task,
                writer=writer,
                watch=None if view is None else view.show,
                interrupts=interrupts,
            )
            # Flushed, so that a log or a pipe shows each rollout when it is done.
            cause = play_all(harness, result, partial(print, flush=True))
    finally:
        if view is not None:
            view.close()
        world.close()
        policy.close()
    print("\n".join(summary_lines(result)))
    return result, cause


def _size(size: Any) -> tuple[int, int]:
    values = (size, size) if isinstance(size, int) else size
    if isinstance(values, Sequence) and len(values) == 2 and all(type(v) is int for v in values):
        return values[0], values[1]
    raise UsageError(f"--image_size={size}: expected HEIGHT,WIDTH such as 240,320")


def _command_line() -> list[str]:
    program, *words = sys.argv
    return [Path(program).name, *(shlex.quote(word) for word in words)]


def main() -> NoReturn:
    """Run the command line."""
    from positronic.inference.open_loop import open_loop

    run_command_line({"sim": sim, "open_loop": open_loop}, "positronic-inference")
