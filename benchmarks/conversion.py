"""Benchmark: conversion beside LeRobot's own writer, on the same raw episodes, in one run.

    python benchmarks/conversion.py [--rounds=3] [--only=sides,codecs,scale]

``sides``: LeRobot's default and streaming writers, ours with the same encoder and with our default,
and PyAV with nothing else, in turns. A frame is a time step with two pictures. Imports are not in
the seconds, starting worker processes is. ``codecs``: what our default encoder was chosen from.
``scale``: memory against the number of episodes, speed against the number of workers.

The raw episodes are rendered by MuJoCo and recorded with the project's own writer.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import episodes
import numpy as np
import psutil
from conversion_codecs import compare_codecs
from turns import Child

HERE = Path(__file__).parent
EPISODES = 8
MANY = 200
MIB = 1 << 20


class Side(Child):
    """A contender in another process, and what it measured."""

    def __init__(self, name: str, side: str, raw: Path, vcodec: str = "", workers: int = 2) -> None:
        """Start it and wait until it has imported what it needs."""
        script = str(HERE / "conversion_sides.py")
        command = [sys.executable, script, side, str(raw), vcodec, str(workers)]
        super().__init__(name, command, raw.parent / f"{name}.log")
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.peak = 0
        self.answer()

    def convert(self, output: Path) -> None:
        """Let it convert the raw episodes once, and watch its memory."""
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done,))
        watch.start()
        try:
            answer = self.ask(str(output))
        finally:
            done.set()
            watch.join()
        self.seconds.append(answer["seconds"])
        self.cpu.append(answer["cpu"])

    def _watch(self, done: threading.Event) -> None:
        process = psutil.Process(self.process.pid)
        while not done.wait(0.1):
            resident = 0
            for member in (process, *process.children(recursive=True)):
                try:
                    resident += member.memory_info().rss
                except psutil.Error:
                    continue  # it has ended meanwhile
            self.peak = max(self.peak, resident)


def pictures(files: list[Path]) -> Iterator[np.ndarray[Any, Any]]:
    """Frames of video files, one file after the other."""
    import av

    for file in files:
        with av.open(str(file)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")


def quality(raw: Path, output: Path, name: str) -> float:
    """PSNR in dB of all frames against the raw ones; an error if there are fewer or more."""
    error, frames = 0.0, 0
    for key, camera in episodes.CAMERAS.items():
        recorded = pictures(sorted(raw.glob(f"*/*/{camera}.mp4")))
        converted = pictures(sorted(output.glob(f"videos/{key}/*/*.mp4")))
        try:
            for a, b in zip(recorded, converted, strict=True):
                error += float(np.square(a.astype(np.int32) - b).mean())
                frames += 1
        except ValueError:
            sys.exit(f"error: {name} did not write {EPISODES * episodes.FRAMES} frames of {key}")
    return 10 * float(np.log10(255**2 * frames / error))


def compare_sides(raw: Path, rounds: int) -> None:
    """Print the table of the contenders."""
    av1, h264 = "libsvtav1", "h264"
    sides = [
        Side("LeRobot, default", "default", raw),
        Side("LeRobot, streaming", "streaming", raw),
        Side("here, LeRobot's AV1", "ours", raw, av1),
        Side("here, own default", "ours", raw, h264),
        Side("bare PyAV, LeRobot's AV1", "bare", raw, av1),
        Side("bare PyAV, own default", "bare", raw, h264),
    ]
    outputs = {}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            outputs[side.name] = raw.parent / f"{side.name} {number}"
            side.convert(outputs[side.name])
    for side in sides:
        side.end()
    frames = EPISODES * episodes.FRAMES
    print("\n| what | frames/s | times default | times streaming | of bare | CPU-s ", end="")
    print("| default's CPU-s over its | peak MiB | PSNR, dB | MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    default, streaming = sides[:2]
    limits = dict(zip((sides[2].name, sides[3].name), sides[4:], strict=True))
    for side in sides:
        output = outputs[side.name]
        size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 1e6
        ours = side.name in limits
        columns = [
            side.name,
            f"{frames / statistics.median(side.seconds):.0f}",
            f"{ratio(default.seconds, side.seconds):.1f}",
            f"{ratio(streaming.seconds, side.seconds):.1f}",
            f"{ratio(limits[side.name].seconds, side.seconds):.0%}" if ours else "",
            f"{statistics.median(side.cpu):.1f}",
            f"{ratio(default.cpu, side.cpu):.1f}",
            f"{side.peak / MIB:.0f}",
            "" if side in sides[4:] else f"{quality(raw, output, side.name):.2f}",
            f"{size:.1f}",
        ]
        print(f"| {' | '.join(columns)} |", flush=True)
    print("\nseconds by round: ", end="")
    print("; ".join(f"{s.name}: {', '.join(f'{t:.2f}' for t in s.seconds)}" for s in sides))


def ratio(theirs: list[float], ours: list[float]) -> float:
    """The median over the rounds of what theirs takes in terms of ours."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def compare_scale(raw: Path, rounds: int) -> None:
    """Print memory for few and many episodes, and speed with one and two workers."""
    many = raw.parent / "many"
    episodes.repeat(raw, many, MANY)
    print("\n| episodes | workers | frames/s | CPU-s | peak MiB of all processes |")
    print("|---|---|---|---|---|")
    for source, count, workers, times in (
        (raw, EPISODES, 1, rounds),
        (raw, EPISODES, 2, rounds),
        (many, MANY, 2, 1),
    ):
        side = Side(f"{count}-{workers}", "ours", source, "h264", workers)
        for number in range(times):
            side.convert(raw.parent / f"{side.name} {number}")
        side.end()
        speed = count * episodes.FRAMES / statistics.median(side.seconds)
        cpu = statistics.median(side.cpu)
        print(
            f"| {count} | {workers} | {speed:.0f} | {cpu:.1f} | {side.peak / MIB:.0f} |", flush=True
        )


def main() -> None:
    """Record the raw episodes and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--only", default="sides,codecs,scale", help="tables, by comma")
    parser.add_argument("--raw", type=Path, help="episodes of an earlier run; else recorded now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw"
        if options.raw:
            episodes.repeat(options.raw, raw, EPISODES)
        else:
            episodes.record(raw, EPISODES)
        print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores", end=", ")
        print(f"load {os.getloadavg()[0]:.1f} before", flush=True)
        tables = {
            "sides": lambda: compare_sides(raw, options.rounds),
            "codecs": lambda: compare_codecs(raw),
            "scale": lambda: compare_scale(raw, options.rounds),
        }
        for table in options.only.split(","):
            tables[table]()


if __name__ == "__main__":
    main()
