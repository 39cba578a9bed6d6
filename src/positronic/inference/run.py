"""Many rollouts and their reckoning: a line for each, a rate at the end, files to keep."""

import os
import platform
import time
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path

from positronic.errors import PositronicError
from positronic.inference.replay import load_replay
from positronic.inference.report import choose_shown, render_report
from positronic.inference.results import EpisodeResult, RunResult
from positronic.inference.rollout import Harness

RESULTS, REPORT = "results.json", "report.html"
DISTRIBUTIONS = ("positronic-lightning", "mujoco", "gym-hil", "gymnasium", "numpy")


def play_all(
    harness: Harness, run: RunResult, say: Callable[[str], None] = print
) -> BaseException | None:
    """Play the rollouts of ``run`` one after the other and add their results to it.

    Returns what ended the run early, None when all were played. An error before the first rollout
    has begun is raised: there is nothing to report then.
    """
    began = time.perf_counter()
    cause: BaseException | None = None
    for index in range(run.num_iterations):
        try:
            result, cause = harness.play(run.seed + index, index, run.num_iterations)
        except (KeyboardInterrupt, PositronicError, OSError) as error:
            if not run.episodes:
                raise
            cause = error
        else:
            run.episodes.append(result)
            run.policy = run.policy or harness.policy.meta
            say(episode_line(result, index, run.num_iterations))
        if cause is not None:
            run.error = str(cause) or "interrupted"
            break
    run.wall_s = time.perf_counter() - began
    return cause


def episode_line(result: EpisodeResult, index: int, count: int) -> str:
    """Say in one line how a rollout went."""
    latency = result.latency
    timing = (
        "no inference"
        if latency.mean is None
        else f"inference {latency.mean:.1f} ms mean, {latency.max:.1f} ms max"
    )
    width = len(str(count))
    return (
        f"{index + 1:{width}}/{count}  seed {result.seed}  {result.ended_by:<11}  "
        f"{result.steps:3} steps  return {result.total_reward:.2f}  {timing}"
    )


def summary_lines(run: RunResult) -> list[str]:
    """Say what all rollouts together show."""
    lines = [f"success rate {run.rate}"]
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
    return [*lines, ", ".join(parts)] if parts else lines


def write_files(run: RunResult, output_dir: Path, videos: int) -> Path:
    """Write ``results.json`` and ``report.html`` of ``run``; return the report's path.

    Those of an earlier run in the same directory are kept under the time of that run.
    """
    _keep_earlier(output_dir)
    _write(output_dir / RESULTS, run.dumps())
    shown = [i for i in choose_shown(run.episodes, videos) if run.episodes[i].path is not None]
    replays = {}
    for i in shown:
        path = run.episodes[i].path
        assert path is not None
        replays[i] = load_replay(path)
    _write(output_dir / REPORT, render_report(run, replays))
    return output_dir / REPORT


def now() -> str:
    """Return the time of day, ISO 8601 with offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of what decides how a rollout goes."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _keep_earlier(directory: Path) -> None:
    results = directory / RESULTS
    report = directory / REPORT
    present = [path for path in (results, report) if path.exists()]
    if not present:
        return
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


def _write(path: Path, text: str) -> None:
    """Write all of the file or nothing of it."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)
