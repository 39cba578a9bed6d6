"""Evaluation of one policy: open the environment, run all rollouts, write the results."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foundation import storage
from foundation.errors import StorageError, UsageError
from foundation.stopping import DeferredInterrupts
from positronic.dataset import LocalDataset
from positronic.errors import DatasetError, EpisodeError
from positronic.inference.live.view import open_live_view
from positronic.inference.results import RunResult
from positronic.inference.rollout import Harness
from positronic.inference.run import (
    Played,
    in_turn,
    now,
    play_all,
    staged_videos,
    versions,
    write_files,
)
from positronic.inference.setting import Setting
from positronic.inference.video import VideoDirectory
from positronic.inference.workers import Job, play_at_once, require_sendable
from positronic.policy import Policy


@dataclass(frozen=True)
class Evaluation:
    """Rollouts from ``seed`` to ``seed + num_iterations - 1``, at each delay of the setting.

    ``video`` is False, True (videos beside the report) or the directory of the videos, local or in
    S3; ``report_videos`` is the number of rollouts shown in full in the report. ``part_of`` is the
    page of the comparison that they belong to, relative to the report.
    """

    setting: Setting
    seed: int
    num_iterations: int
    num_envs: int = 1
    show_gui: bool = False
    video: bool | str = False
    report_videos: int = 8
    part_of: str = ""

    def check(self, policy: Policy, output_dir: str | None) -> None:
        """Check that the options fit together.

        Raises:
            UsageError: they do not; the message says what to change.
        """
        if self.num_envs < 1:
            raise UsageError(f"--num_envs={self.num_envs}: expected 1 or more")
        if self.num_envs > 1:
            require_sendable(policy)
        if self.num_envs > 1 and self.show_gui:
            raise UsageError(
                "--driver.show_gui=True shows one rollout at a time; leave out --num_envs"
            )
        if self.video and not self.setting.cameras:
            raise UsageError("--video records camera images, but there are no --cameras")
        if self.video is True and output_dir is None:
            raise UsageError(
                "--video=True writes videos beside the report: give --output_dir=DIR or --video=DIR"
            )

    def run(
        self, policy: Policy, output_dir: str | None, root: Path | None
    ) -> tuple[RunResult, BaseException | None]:
        """Play all rollouts and, with an output directory, write everything there.

        ``root`` is the local directory of ``output_dir``. Returns the results, and the exception
        that ended the run early, if any.
        """
        if root is not None:
            _require_rollouts(root)
        with ExitStack() as stack:
            videos = stack.enter_context(self._videos(root))
            if root is None and not self.part_of:
                said = "nothing will be recorded; --output_dir=DIR keeps episodes and a report"
                print(said, flush=True)
            result, cause = self._play(policy, root, videos)
            if root is not None and output_dir is not None:
                result.published = {root: storage.join(output_dir)}
                if videos is not None and isinstance(self.video, str):
                    result.published = {videos.root: storage.join(self.video), **result.published}
                write_files(result, root, self.report_videos)
        return result, cause

    def _play(
        self, policy: Policy, root: Path | None, videos: VideoDirectory | None
    ) -> tuple[RunResult, BaseException | None]:
        setting = self.setting
        writer = None
        if root is not None:
            from positronic.dataset import DatasetWriter

            writer = DatasetWriter(root)
        with ExitStack() as stack:
            # Reports invalid arguments and missing libraries before any worker starts, and puts
            # the compiled scene into the cache for all of them.
            world = setting.open_env()
            stack.callback(world.close)
            result = self._result(world.unwrapped)
            interrupts = stack.enter_context(DeferredInterrupts())
            plan = setting.plan(self.seed, self.num_iterations)
            rollouts: Iterator[Played]
            if self.num_envs > 1:
                job = Job(policy, setting, len(plan), root, videos)
                rollouts = play_at_once(job, plan, self.num_envs, interrupts)
            else:
                harness = Harness(world, policy, setting, writer, videos, interrupts=interrupts)
                if self.show_gui:
                    stack.enter_context(_live_view(harness))
                rollouts = in_turn(harness, plan)
            # Flushed, so that each line appears at once in a log or pipe.
            log = partial(print, flush=True)
            cause = play_all(result, rollouts, writer if self.num_envs > 1 else None, log)
        return result, cause

    def _result(self, world: Any) -> RunResult:
        setting = self.setting
        return RunResult(
            env=setting.env,
            task=setting.task or world.task,
            seed=self.seed,
            num_iterations=self.num_iterations,
            simulation_time=setting.simulation_time,
            control_fps=world.control_fps,
            cameras=world.cameras,
            image_size=world.image_size,
            started=now(),
            command=command_line(),
            versions=versions(),
            player=setting.player_name,
            charge_inference_time=setting.charge_inference_time,
            delays=setting.delays,
            part_of=self.part_of,
        )

    @contextmanager
    def _videos(self, root: Path | None) -> Iterator[VideoDirectory | None]:
        count = len(self.setting.plan(self.seed, self.num_iterations))
        if not self.video:
            yield None
        elif self.video is True:
            assert root is not None
            yield VideoDirectory(staged_videos(root), count)
        else:
            with storage.output_directory(self.video) as directory:
                if directory.is_dir() and any(directory.iterdir()):
                    raise StorageError(f"--video={self.video} is not empty; give a new directory")
                yield VideoDirectory(directory, count)


@contextmanager
def _live_view(harness: Harness) -> Iterator[None]:
    """Show the harness's rollouts in a window, if there is a display."""
    view, why = open_live_view()
    if view is None:
        print(f"no camera window: {why}; continuing without", flush=True)
        yield
        return
    harness.watch = view.show
    try:
        yield
    finally:
        view.close()


def command_line() -> tuple[str, ...]:
    """The arguments of this program, quoted for a shell."""
    program, *words = sys.argv
    name, spec = Path(program).name, sys.modules["__main__"].__spec__
    if name == "__main__.py" and spec is not None:
        name = f"python -m {spec.parent}"
    return (name, *(shlex.quote(word) for word in words))


def _require_rollouts(root: Path) -> None:
    """Check that a directory has no demonstrations: mixed in, rollouts would be trained on.

    Raises:
        StorageError: an episode in it is not a rollout.
    """
    try:
        first = LocalDataset(root)[0].static
    except (DatasetError, EpisodeError, IndexError):  # no finished episode yet
        return
    if "simulation.iteration" not in first and not any(
        key.startswith("inference.") for key in first
    ):
        raise StorageError(
            f"{root} holds recordings that are not rollouts; choose another --output_dir"
        )
