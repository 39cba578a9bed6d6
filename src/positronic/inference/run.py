"""Run a batch of rollouts; print a line for each, write results.json and report.html."""

import platform
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from foundation.console import coloured
from positronic.inference.replay import load_replay
from positronic.inference.report import choose_shown, render_report
from positronic.inference.results import EpisodeResult, RunResult, rate_of
from positronic.inference.rollout import Harness
from positronic.inference.setting import Rollout

if TYPE_CHECKING:
    from positronic.dataset import DatasetWriter

RESULTS, REPORT, VIDEOS = "results.json", "report.html", "videos"
# Text before a video's name in report.html and results.json.
VIDEO_PREFIX = rf'(href="|"video": "[^"]*/){VIDEOS}/'
# Unique id of this process; pids repeat across containers.
_OURS = uuid.uuid4().hex
DISTRIBUTIONS = ("positronic-lightning", "mujoco", "gym-hil", "gymnasium", "numpy")


class Played(NamedTuple):
    """A played rollout: its result, the exception that cut it short, the policy's metadata."""

    rollout: Rollout
    result: EpisodeResult
    cause: BaseException | None
    meta: Mapping[str, Any]


def in_turn(harness: Harness, plan: Sequence[Rollout]) -> Iterator[Played]:
    """Play rollouts one after the other, until one is cut short."""
    for rollout in plan:
        result, cause = harness.play(rollout, len(plan))
        yield Played(rollout, result, cause, harness.meta)
        if cause is not None:
            return


def play_all(
    run: RunResult,
    rollouts: Iterator[Played],
    writer: "DatasetWriter | None" = None,
    log: Callable[[str], None] = print,
) -> BaseException | None:
    """Consume ``rollouts``, which may end in any order, and add their results to ``run`` in order.

    With a ``writer`` the recordings are staged, and published in order too. Returns the exception
    that ended the run early, or None. An error before the first result is raised: there is nothing
    to report then.
    """
    began = time.perf_counter()
    cause: BaseException | None = None
    buffer = _ReorderBuffer(writer)
    try:
        for played in rollouts:
            buffer.put(played)
            run.policy = run.policy or played.meta
            cause = cause or played.cause
            log(episode_line(played.result, played.rollout.index, run.count))
    except (KeyboardInterrupt, Exception) as error:  # even a bug must not lose recordings
        if not buffer:
            raise
        cause = cause or error
    run.episodes += buffer.clear()
    interrupted = isinstance(cause, KeyboardInterrupt)
    run.error = "interrupted" if interrupted else None if cause is None else str(cause)
    run.wall_s = time.perf_counter() - began
    return cause


class _ReorderBuffer:
    """Reorder buffer: publishes finished rollouts in the order of the plan."""

    def __init__(self, writer: "DatasetWriter | None") -> None:
        self._writer = writer
        self._results: dict[int, EpisodeResult] = {}
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._results)

    def put(self, played: Played) -> None:
        self._results[played.rollout.index] = played.result
        while self._next in self._results:
            self._publish(self._next)
            self._next += 1

    def clear(self) -> list[EpisodeResult]:
        """Publish the remaining rollouts, and return all results in order."""
        for index in sorted(self._results):
            if index > self._next:
                self._publish(index)
        return [self._results[index] for index in sorted(self._results)]

    def _publish(self, index: int) -> None:
        result = self._results[index]
        if self._writer is not None and result.path is not None:
            self._results[index] = result.recorded_at(self._writer.publish(result.path))


def episode_line(result: EpisodeResult, index: int, count: int) -> str:
    """One line for the terminal about a rollout."""
    latency = result.latency
    timing = (
        "no inference"
        if latency.mean is None
        else f"inference {latency.mean:.1f} ms mean, {latency.max:.1f} ms max"
    )
    width = len(str(count))
    delay = "" if result.delay is None else f"delay {result.delay:g} s  "
    starved = f"  starved {result.starved} steps" if result.starved else ""
    ended = coloured(f"{result.ended_by:<11}", "green" if result.success else "red")
    return (
        f"{index + 1:{width}}/{count}  seed {result.seed}  {delay}{ended}  "
        f"{result.steps:3} steps  return {result.total_reward:.2f}  {timing}{starved}"
    )


def summary_lines(run: RunResult) -> list[str]:
    """Summary lines for the terminal."""
    lines = [
        f"delay {delay:g} s: success rate {rate_of(episodes)}, "
        f"starved {sum(e.starved for e in episodes)} of {sum(e.steps for e in episodes)} steps"
        for delay, episodes in run.by_delay.items()
    ] or [f"success rate {run.rate}"]
    if run.named_failures:
        counts = [f"{count} {outcome}" for outcome, count in run.named_failures.items()]
        lines.append(f"failures: {', '.join(counts)}")
    unfinished = sum(not episode.finished for episode in run.episodes)
    if unfinished:
        lines.append(f"not finished, so not counted: {unfinished}")
    parts = []
    if run.mean_steps is not None:
        seconds = run.mean_steps / run.control_fps
        parts.append(f"mean length {run.mean_steps:.1f} steps ({seconds:.1f} s)")
    latency = run.latency
    if latency.median is not None:
        parts.append(f"inference median {latency.median:.1f} ms, p95 {latency.p95:.1f} ms")
    starved = sum(episode.starved for episode in run.episodes)
    if starved and not run.by_delay:
        parts.append(f"starved {starved} steps")
    return [*lines, ", ".join(parts)] if parts else lines


def staged_videos(output_dir: Path) -> Path:
    """Directory of this run's videos while it runs, separate from those of an earlier run."""
    return output_dir / f".{VIDEOS}-{_OURS}"


def write_files(run: RunResult, output_dir: Path, videos: int) -> Path:
    """Write ``results.json`` and ``report.html`` of ``run``; return the report's path.

    Those of an earlier run in the same directory, and its videos, are renamed with its time.
    ``staged_videos(output_dir)`` becomes ``VIDEOS``.
    """
    _relink_videos(keep_earlier(output_dir, RESULTS, REPORT, VIDEOS))
    _publish_videos(run, staged_videos(output_dir), output_dir / VIDEOS)
    write_text(output_dir / RESULTS, run.dumps())
    shown = [i for i in choose_shown(run.episodes, videos) if run.episodes[i].path is not None]
    replays = {}
    for i in shown:
        path = run.episodes[i].path
        assert path is not None
        replays[i] = load_replay(path)
    write_text(output_dir / REPORT, render_report(run, replays))
    return output_dir / REPORT


def _relink_videos(kept: Mapping[str, Path]) -> None:
    """Update results and report of an earlier run to the new path of its videos."""
    videos = kept.get(VIDEOS)
    if videos is None:
        return
    for name in (RESULTS, REPORT):
        if name in kept:
            text = kept[name].read_text(encoding="utf-8")
            write_text(kept[name], re.sub(VIDEO_PREFIX, rf"\g<1>{videos.name}/", text))


def _publish_videos(run: RunResult, staged: Path, videos: Path) -> None:
    if not staged.is_dir():
        return
    staged.rename(videos)
    run.episodes[:] = [
        episode if episode.video is None else replace(episode, video=videos / episode.video.name)
        for episode in run.episodes
    ]


def now() -> str:
    """Return the current time, ISO 8601 with offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect a rollout."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def keep_earlier(directory: Path, *names: str) -> dict[str, Path]:
    """Rename the existing ones of ``names``, of an earlier run, with the first one's mtime.

    Returns the new path of each.
    """
    present = [directory / name for name in names if (directory / name).exists()]
    if not present:
        return {}
    stamp = datetime.fromtimestamp(present[0].stat().st_mtime).strftime("%Y%m%d_%H%M%S")
    number = 0
    while True:
        suffix = f"-{stamp}" + (f"-{number}" if number else "")
        targets = [path.with_name(f"{path.stem}{suffix}{path.suffix}") for path in present]
        if not any(target.exists() for target in targets):
            break
        number += 1
    for path, target in zip(present, targets, strict=True):
        path.rename(target)
    return {path.name: target for path, target in zip(present, targets, strict=True)}


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    staged = path.with_name(f".{path.name}.{_OURS}")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)
