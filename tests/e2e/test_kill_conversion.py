"""Converting, publishing and appending are killed at moments of every kind, and lose nothing."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from foundation.errors import StorageError
from foundation.storage.s3.cache import cache_home
from positronic.vendors.lerobot.verification.verify import verify_dataset
from tests.positronic.vendors.lerobot.raw import record
from tests.s3 import Faulty

pytestmark = pytest.mark.e2e

MODULE = "positronic.vendors.lerobot.convert"
HEAVY = [
    MODULE,
    "positronic.vendors.lerobot.conversion.append",
    "lerobot.datasets.dataset_metadata",
]
PROVENANCE = "meta/provenance.json"
NOTHING = "no directory", "nothing at", "unfinished"
PHASES = "beginning", "encoding", "assembling", "finishing"
FIRST, LATER = 7, 4  # episodes converted, and appended

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def context() -> Any:
    """Processes that begin with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recordings to convert, one of them broken, and recordings to append."""
    root = tmp_path_factory.mktemp("raw")
    for index in range(FIRST + LATER):
        folder = root / ("first" if index < FIRST else "later")
        record(folder, index, steps=5 + index % 4, statics={"task": f"task {index % 3}"})
    record(root / "first", 99, without=("grip",))
    return {"convert": root / "first", "append": root / "later"}


class Command:
    """One start of a command, in a process group of its own."""

    def __init__(self, context: Any, words: list[str], log: Path) -> None:
        self.log = log
        environment = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "XDG_"))}
        self.process = context.Process(target=_command, args=(words, environment, str(log)))
        self.process.start()

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def kill(self, *, group: bool) -> None:
        """Kill it; its workers too, or let them be orphans that find out by themselves."""
        try:
            if group:
                os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has not come to be a group
        self.process.kill()

    def status(self) -> int:
        self.process.join(120)
        assert self.process.exitcode is not None, f"it hangs: {self.log.read_text()}"
        return int(self.process.exitcode)


def _command(words: list[str], environment: dict[str, str], log: str) -> None:
    os.setsid()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from positronic import cli
    from positronic.vendors.lerobot.convert import COMMANDS, PROG

    sys.exit(cli.status(COMMANDS, PROG, words))


class Job:
    """A command that is started until it has come to its end, and the states readers may see."""

    def __init__(
        self, context: Any, verb: str, raw: dict[str, Path], output: str | Path, log: Path
    ) -> None:
        self.context, self.output, self.log = context, output, log
        self.words = [
            verb,
            f"--dataset.dataset.path={raw[verb]}",
            "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute",
            "--dataset.codec.image_size=[32,32]",
            f"--output_dir={output}",
            *(["--fps=15"] if verb == "convert" else []),
        ]
        self.kills = 0

    def start(self, *, workers: int = 0, resume: bool = True) -> Command:
        words = [*self.words, f"--workers={workers}", f"--resume={resume}"]
        return Command(self.context, words, self.log)

    def finish(self) -> None:
        command = self.start()
        assert command.status() == 0, self.log.read_text()

    def struck(self, command: Command) -> bool:
        """Whether the kill came before the end."""
        status = command.status()
        assert status in (0, -signal.SIGKILL), self.log.read_text()
        self.kills += status != 0
        return status != 0


def contents(root: Path) -> Files:
    """Every file, but of the provenance only what does not say when it was."""
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    document = json.loads(files[PROVENANCE])
    kept = {key: document[key] for key in ("episodes", "refused", "options")}
    return files | {PROVENANCE: json.dumps(kept).encode()}


@pytest.fixture(scope="module")
def states(
    context: Any, raw: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Files]:
    """What conversion and append make without interruptions, from the command line."""
    root = tmp_path_factory.mktemp("whole")
    found = {}
    for verb in ("convert", "append"):
        command = Job(context, verb, raw, root / "out", root / "log").start(resume=False)
        assert command.status() == 0, (root / "log").read_text()
        found[verb] = contents(root / "out")
    return found


def read(output: str | Path) -> Files | None:
    """What a reader gets: a whole dataset, or None where it is told that there is none as yet."""
    try:
        return contents(storage.fetch(output))
    except StorageError as error:
        if any(words in str(error) for words in NOTHING):
            return None
        raise


def require_whole(output: str | Path, expected: Files, episodes: int) -> None:
    root = storage.fetch(output)
    verdict = verify_dataset(root, workers=1)
    assert verdict.faults == ()
    assert verdict.episodes == episodes
    found = contents(root)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def until(command: Command, happened: Callable[[], bool]) -> None:
    while command.alive and not happened():
        time.sleep(0.0003)


def strike(rng: random.Random, command: Command, work_dir: Path, phase: str) -> None:
    """Kill at a moment of the phase."""
    pause = rng.uniform(0, 0.03)
    if phase == "encoding":
        done = len(list(work_dir.glob("episodes/*"))) + rng.randint(1, 3)
        until(command, lambda: len(list(work_dir.glob("episodes/*"))) >= done)
    elif phase != "beginning":
        name = "assembling" if phase == "assembling" else "dataset"
        until(command, lambda: (work_dir / name).is_dir())
        pause = pause if phase == "assembling" else pause / 20
    time.sleep(pause)
    command.kill(group=rng.random() < 0.5)


def hunt(
    rng: random.Random,
    job: Job,
    work_dir: Path,
    allowed: list[Files | None],
    phases: list[str],
    restore: Callable[[], None],
) -> None:
    """Kill the job in each of the phases; whenever it ends before, restore what was there."""
    for _ in range(40):
        phase = rng.choice(phases)
        command = job.start(workers=rng.choice([0, 0, 0, 2]))
        strike(rng, command, work_dir, phase)
        struck = job.struck(command)
        assert read(job.output) in allowed, phase
        if not struck:
            restore()
            continue
        phases.remove(phase)
        if not phases:
            job.finish()
            return
    raise AssertionError(f"never struck: {phases}")


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_on_a_local_disk(
    context: Any, raw: dict[str, Path], states: dict[str, Files], tmp_path: Path, seed: int
) -> None:
    rng, out = random.Random(seed), tmp_path / "out"
    work_dir = tmp_path / ".out.partial"
    job = Job(context, "convert", raw, out, tmp_path / "log")
    allowed: list[Files | None] = [None, states["convert"]]
    hunt(rng, job, work_dir, allowed, [*PHASES, "encoding", "encoding"], lambda: shutil.rmtree(out))
    require_whole(out, states["convert"], FIRST)
    shutil.copytree(out, tmp_path / "before")

    def restore() -> None:
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "before", out)

    job = Job(context, "append", raw, out, tmp_path / "log")
    hunt(rng, job, work_dir, [states["convert"], states["append"]], [*PHASES], restore)
    require_whole(out, states["append"], FIRST + LATER)
    left = {path.name for path in tmp_path.iterdir()} - {"out", "before", "log"}
    assert not left


@pytest.mark.parametrize("seed", [3, 4])
def test_killed_while_it_publishes(
    context: Any,
    raw: dict[str, Path],
    states: dict[str, Files],
    tmp_path: Path,
    s3: Any,
    faulty: Faulty,
    seed: int,
) -> None:
    rng, output = random.Random(seed), "s3://bucket/sets/one"

    def nothing() -> None:
        for entry in s3.list_objects_v2(Bucket="bucket").get("Contents", ()):
            s3.delete_object(Bucket="bucket", Key=entry["Key"])

    job = Job(context, "convert", raw, output, tmp_path / "log")
    hunt_publication(rng, job, faulty, [None, states["convert"]], nothing)
    require_whole(output, states["convert"], FIRST)
    shutil.copytree(storage.fetch(output), tmp_path / "before")

    def before() -> None:
        nothing()
        storage.publish(tmp_path / "before", output)

    job = Job(context, "append", raw, output, tmp_path / "log")
    hunt_publication(rng, job, faulty, [states["convert"], states["append"]], before)
    require_whole(output, states["append"], FIRST + LATER)
    assert not list((cache_home().parent / "conversions").iterdir())


def hunt_publication(
    rng: random.Random,
    job: Job,
    proxy: Faulty,
    allowed: list[Files | None],
    restore: Callable[[], None],
) -> None:
    """Kill the job four times, each just before some change to the bucket; meanwhile read on."""
    while job.kills < 4:
        command = job.start()
        kill_before_request(rng.randint(1, 12), command, proxy)
        while command.alive:
            assert read(job.output) in allowed
            command.process.join(0.1)
        struck = job.struck(command)
        proxy.watch = None
        assert read(job.output) in allowed
        if not struck:
            restore()
    job.finish()


def kill_before_request(number: int, command: Command, proxy: Faulty) -> None:
    puts = 0

    def watch(method: str, path: str) -> None:
        nonlocal puts
        puts += method == "PUT"
        if puts == number:
            command.kill(group=True)

    proxy.watch = watch
