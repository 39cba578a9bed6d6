"""Benchmark: start-up time of each program, with LeRobot imported whole and as it is needed.

python benchmarks/start_up.py [--repeats=5] [--beside=/path/to/another/version/src] [--server]

Both take turns within one run, on six episodes that are recorded first. With ``--beside``: another
version and this one instead; with ``--server`` only their servers, and what these take of memory.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from turns import spread

WHOLE = "from getiaction import deferred_imports; deferred_imports.install = lambda: None; "
PROGRAM = (
    "{before}import sys; from {module} import main; sys.argv[0] = {module!r}; sys.exit(main())"
)
CONVERT = "positronic.vendors.lerobot.convert"
TRAIN = "positronic.vendors.lerobot.train"
SERVER = "positronic.vendors.lerobot.server"
FIT = "getiaction.cli"
PORT = 8471


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="src of another version")
    parser.add_argument("--server", action="store_true", help="compare the servers alone")
    options = parser.parse_args()
    repeats, beside = options.repeats, options.beside and options.beside.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        record = command("positronic.data_collection", "scripted --episodes=6 --output_dir=raw")
        subprocess.run(record, check=True, capture_output=True)
        versions = {"LeRobot whole": WHOLE, "as needed": ""}
        if beside:
            here = Path(__file__).resolve().parents[1] / "src"
            versions = {"the other": source(beside), "this version": source(here)}
        for place, before in enumerate(versions.values()):
            Path(str(place)).mkdir()
            os.chdir(str(place))
            run(command(CONVERT, convert("data"), before))
            run(command(TRAIN, train("first"), before))
            os.chdir("..")
        if options.server:
            compare_servers(versions, repeats)
            return
        print(f"| | {', s | '.join(versions)}, s | ratio |\n|---|---|---|---|", flush=True)
        for name in MEASURES:
            taken: dict[str, list[float]] = {version: [] for version in versions}
            for turn in range(repeats):
                for place, (version, before) in enumerate(versions.items()):
                    os.chdir(str(place))
                    taken[version].append(MEASURES[name](before, f"{name}{turn}"))
                    os.chdir("..")
            first, second = (statistics.median(times) for times in taken.values())
            print(
                f"| {TITLES[name]} | {first:.1f} | {second:.1f} | {second / first:.2f} |",
                flush=True,
            )
        print(f"\nload {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {repeats} each, medians")


def command(module: str, words: str, before: str = "") -> list[str]:
    """The program of a module, with imports deferred unless ``before`` says otherwise."""
    return [sys.executable, "-c", PROGRAM.format(before=before, module=module), *words.split()]


def source(src: Path) -> str:
    """Code that lets a program import this version."""
    return f"import sys; sys.path.insert(0, {str(src)!r}); "


def convert(target: str) -> str:
    """Arguments that convert the recordings."""
    codec = "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_state"
    return f"convert --dataset.dataset.path=../raw {codec} --output_dir={target} --fps=15"


def train(run_name: str) -> str:
    """Arguments of one step of training."""
    return (
        f"--dataset_root=data --output_dir=runs --run_name={run_name} --policy=.act_state"
        " --steps=1 --save_freq=1 --batch_size=8"
    )


def run(words: list[str], status: int = 0) -> float:
    """Run a program to its end; seconds."""
    begun = time.monotonic()
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    return time.monotonic() - begun


def compare_servers(versions: dict[str, str], repeats: int) -> None:
    """Print what the start of each version's server takes."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in versions}
    for turn in range(repeats):
        for name in list(versions)[:: 1 if turn % 2 else -1]:
            os.chdir(str(list(versions).index(name)))
            found[name].append(start(versions[name]))
            os.chdir("..")
    print("| server ready, ACT of 2.7 MB | s | CPU-s | resident, MiB |\n|---|---|---|---|")
    for name, rows in found.items():
        print(f"| {name} |", *(f"{spread(column)} |" for column in zip(*rows, strict=True)))
    print(f"\nload {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {repeats} each")


def serve(before: str, _: str) -> float:
    """Start a server; seconds until it is ready."""
    return start(before)[0]


def start(before: str) -> tuple[float, float, float]:
    """Start a server; seconds and processor seconds until it is ready, and MiB that it then has."""
    import psutil

    begun = time.monotonic()
    words = command(SERVER, f"--checkpoints_dir=runs/first --port={PORT}", before)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz").close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None
                time.sleep(0.02)
        taken = time.monotonic() - begun
        process = psutil.Process(server.pid)
        times, resident = process.cpu_times(), process.memory_info().rss
        server.terminate()
    return taken, times.user + times.system, resident / 2**20


MEASURES: dict[str, Callable[[str, str], float]] = {
    "server": serve,
    "convert": lambda before, name: run(command(CONVERT, convert(name), before)),
    "verify": lambda before, _: run(command(CONVERT, "verify --dataset_root=data", before)),
    "train": lambda before, name: run(command(TRAIN, train(name), before)),
    "fit": lambda before, _: run(command(FIT, "fit --help", before)),
    "fit refused": lambda before, _: run(command(FIT, "fit --trainer.max_step=3", before), 2),
    "train refused": lambda before, _: run(command(TRAIN, "--step=3", before), 2),
    "convert refused": lambda before, _: run(command(CONVERT, "convert --fpss=3", before), 2),
}
TITLES = {
    "server": "server ready, ACT of 2.7 MB",
    "convert": "`convert`, 6 episodes without cameras",
    "verify": "`verify` of them",
    "train": "`train --steps=1`",
    "fit": "`getiaction fit --help`",
    "fit refused": "refusal of an option of `getiaction fit`",
    "train refused": "refusal of a flag of `train`",
    "convert refused": "refusal of a flag of `convert`",
}


if __name__ == "__main__":
    main()
