"""Conversions that are killed, at every kind of step, and go on; the result is always the same."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, override

import psutil
import pytest

from foundation import storage
from foundation.errors import StorageError
from positronic import cli
from positronic.codec import Codec
from positronic.dataset import Dataset, Episode, LocalDataset
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import assembly
from positronic.vendors.lerobot.conversion.dataset_writer import LeRobotWriter
from positronic.vendors.lerobot.conversion.output import Output
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.convert import COMMANDS
from tests.positronic.vendors.lerobot.conversion.kills import (
    contents,
    files_in,
    killed,
    renames_to,
    requests,
)
from tests.positronic.vendors.lerobot.raw import FPS, TASK, record

pytestmark = [
    # The forks do nothing but convert, and take no lock of another thread.
    pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning"),
]

# Every how manieth step of about 150 is tried; prime, so that none of a repeated few is left out.
STRIDE = 11

HERE = Options(workers=0)
GO_ON = Options(workers=0, resume=True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    root = tmp_path_factory.mktemp("raw")
    for index, steps in enumerate((12, 5, 9)):
        record(root, index, steps=steps)
    record(root, 3, without=("grip",))
    return LocalDataset(root)


@pytest.fixture(scope="module")
def codec() -> Any:
    return codecs.eepose_absolute(image_size=(32, 32))


@pytest.fixture(scope="module")
def whole(
    raw: LocalDataset, codec: Codec, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What an uninterrupted conversion gives."""
    root = tmp_path_factory.mktemp("whole") / "out"
    assert convert_dataset(raw, codec, root, FPS, HERE).episodes == 3
    return contents(root)


def converting(raw: Dataset, codec: Codec, output: Path | str) -> Callable[[], Any]:
    return lambda: convert_dataset(raw, codec, output, FPS, GO_ON)


def test_killed_at_any_step_it_goes_on(
    raw: LocalDataset, codec: Codec, whole: dict[str, bytes], tmp_path: Path
) -> None:
    steps = 0
    for step in range(1, 10_000, STRIDE):
        root = tmp_path / str(step)
        if not killed(converting(raw, codec, root / "out"), files_in(root), step):
            break
        steps += 1
        assert not (root / "out").exists() or contents(root / "out") == whole
        report = convert_dataset(raw, codec, root / "out", FPS, GO_ON)
        assert (report.episodes, len(report.refused)) == (3, 1)
        assert contents(root / "out") == whole
        assert os.listdir(root) == ["out"]
    assert steps > 100 // STRIDE


def test_killed_again_and_again_it_ends_all_the_same(
    raw: LocalDataset, codec: Codec, whole: dict[str, bytes], tmp_path: Path
) -> None:
    kills = 0
    while killed(converting(raw, codec, tmp_path / "out"), files_in(tmp_path), 30 + 7 * kills):
        kills += 1
    assert kills > 4
    assert contents(tmp_path / "out") == whole


def test_killed_before_the_last_rename_nothing_is_done_twice(
    raw: LocalDataset,
    codec: Codec,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    assert killed(converting(raw, codec, output), renames_to(output))
    monkeypatch.delattr(LeRobotWriter, "create")  # it is assembled already
    report = convert_dataset(raw, codec, output, FPS, GO_ON)
    assert (report.episodes, report.frames, len(report.refused)) == (3, 29, 1)
    assert contents(output) == whole
    again = convert_dataset(raw, codec, output, FPS, GO_ON)
    assert again.finished_before
    assert again.summary() == f"{output} is finished: 3 episodes, 29 frames"
    with pytest.raises(StorageError, match="was converted with other inputs.*fps: 15 against 10"):
        convert_dataset(raw, codec, output, 10, GO_ON)


def begun(raw: Dataset, codec: Codec, output: Path) -> int:
    """Kill a conversion when some of its episodes are done; how many."""
    assert killed(converting(raw, codec, output), renames_to(_episode(output, 2)))
    return Output(output).work_dir().done


def _episode(output: Path, index: int) -> Path:
    return output.parent / f".{output.name}.partial" / "episodes" / f"{index:06d}"


def test_what_is_unfinished_is_neither_taken_nor_lost_unasked(
    raw: LocalDataset, codec: Codec, whole: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert begun(raw, codec, output) == 2
    with pytest.raises(
        StorageError, match=r"2 of 4 episodes done: continue with --resume=True, or"
    ):
        convert_dataset(raw, codec, output, FPS, HERE)
    other = codecs.eepose_absolute(image_size=(48, 32))
    attempts: list[tuple[Dataset, Codec, int, Options, str]] = [
        (raw, codec, 10, GO_ON, r"fps: 15 against 10"),
        (raw, codecs.eepose_state(), FPS, GO_ON, "codec: eepose_absolute against eepose_state"),
        (raw, other, FPS, GO_ON, r"codec\.spec.*32.*against.*48"),
        (raw, codec, FPS, Options(resume=True, task="x"), "--task: None against x"),
        (raw, codec, FPS, Options(resume=True, vcodec="libsvtav1"), "--vcodec: h264 against libs"),
        (raw[:3], codec, FPS, GO_ON, "raw episodes: 4 against 3"),
        (raw[[1, 0, 2, 3]], codec, FPS, GO_ON, "raw episode 0: .* against .*000000000001"),
    ]
    for dataset, its_codec, fps, options, message in attempts:
        with pytest.raises(StorageError, match=f"was started with other inputs.*{message}"):
            convert_dataset(dataset, its_codec, output, fps, options)
    assert convert_dataset(raw, codec, output, FPS, GO_ON).earlier == 2
    assert contents(output) == whole


def test_another_commit_goes_on_with_it(
    raw: LocalDataset,
    codec: Codec,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    monkeypatch.setattr(assembly, "commit", lambda: "aa" * 20)
    begun(raw, codec, output)
    monkeypatch.setattr(assembly, "commit", lambda: "bb" * 20)
    assert convert_dataset(raw, codec, output, FPS, GO_ON).earlier == 2
    assert contents(output) == whole
    assert Provenance.load(output).commits == ["bb" * 20]
    monkeypatch.setattr(assembly, "commit", lambda: None)
    assert convert_dataset(raw, codec, output, FPS, GO_ON).finished_before


def test_other_static_values_are_another_dataset(tmp_path: Path) -> None:
    paths = [record(tmp_path / "raw", index, steps=3, size=None) for index in range(4)]
    raw, state = LocalDataset(tmp_path / "raw"), codecs.eepose_state()
    begun(raw, state, tmp_path / "out")
    statics = paths[1] / "static.json"
    statics.write_text(statics.read_text().replace(TASK, "another task"))
    with pytest.raises(StorageError, match=f"static values of raw episode 1, {paths[1]}"):
        convert_dataset(raw, state, tmp_path / "out", FPS, GO_ON)


def test_two_conversions_to_one_place_are_one_too_many(
    raw: LocalDataset, codec: Codec, tmp_path: Path
) -> None:
    refused = pytest.raises(StorageError, match=f"another process .pid {os.getpid()}. is convert")
    with Output(tmp_path / "out").work_dir().locked(), refused:
        convert_dataset(raw, codec, tmp_path / "out", FPS, GO_ON)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_nothing_that_is_done(
    raw: LocalDataset,
    codec: Codec,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    finish = LeRobotWriter.finish
    monkeypatch.setattr(LeRobotWriter, "finish", full_disk)
    with pytest.raises(OSError, match="No space") as caught:
        convert_dataset(raw, codec, tmp_path / "out", FPS, HERE)
    monkeypatch.setattr(LeRobotWriter, "finish", finish)
    (note,) = caught.value.__notes__
    assert note.startswith("3 of 4 episodes are kept in ")
    assert "--resume=True continues" in note
    convert_dataset(raw, codec, tmp_path / "out", FPS, GO_ON)
    assert contents(tmp_path / "out") == whole


class Deadly(Dataset):
    """Episodes of which one kills whatever worker opens it."""

    def __init__(self, source: Dataset, deadly: int) -> None:
        self._source, self._deadly = source, deadly

    def __len__(self) -> int:
        return len(self._source)

    @override
    def episode(self, index: int) -> Episode:
        if index == self._deadly and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._source[index]


@pytest.mark.e2e
def test_an_episode_that_kills_its_worker_costs_no_other(
    raw: LocalDataset, codec: Codec, tmp_path: Path
) -> None:
    options = Options(workers=2)
    report = convert_dataset(Deadly(raw[:3], 1), codec, tmp_path / "out", FPS, options)
    assert report.episodes == 2
    ((source, reason),) = report.refused
    assert source == str(raw[1].path)  # type: ignore[attr-defined]
    assert "its worker process died" in reason


# However busy the machine is, the signal comes after an episode and before the last step. The pids
# of the processes that it may leave behind are printed.
SIGNALLED = """
import os, psutil, sys
from positronic.vendors.lerobot import convert
from positronic.vendors.lerobot.conversion import workers

outcome = workers._Processes.outcome

def then_signalled(processes, index):
    found = outcome(processes, index)
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    os.kill(os.getpid(), number)
    return found

number = int(sys.argv.pop(1))
workers._Processes.outcome = then_signalled
convert.main()
"""


def signalled(number: signal.Signals, words: list[str]) -> subprocess.CompletedProcess[str]:
    """A conversion that gets the signal once it has an episode of its own."""
    command = [sys.executable, "-c", SIGNALLED, str(number.value), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.e2e
def test_ctrl_c_and_sigkill_of_the_command(
    raw: LocalDataset,
    codec: Codec,
    whole: dict[str, bytes],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    words = [
        "convert",
        f"--dataset.dataset.path={raw.root}",
        "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute",
        "--dataset.codec.image_size=[32,32]",
        f"--output_dir={output}",
        "--fps=15",
        "--workers=2",
    ]
    interrupted = signalled(signal.SIGINT, words)
    error = interrupted.stderr
    assert interrupted.returncode == 128 + signal.SIGINT, error
    assert "episodes are kept in" in error
    assert "Traceback" not in error
    done = Output(output).work_dir().done
    assert done >= 1
    for index in (1, 2):  # so that there is something left to do
        shutil.rmtree(_episode(output, index), ignore_errors=True)
    killed_one = signalled(signal.SIGKILL, [*words, "--resume=True"])
    assert killed_one.returncode == -signal.SIGKILL
    left = []
    for pid in killed_one.stdout.split():
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(int(pid)))
    _, alive = psutil.wait_procs(left, timeout=120)
    assert not alive
    assert cli.status(COMMANDS, "prog", words) == 1
    assert "continue with --resume=True" in capfd.readouterr().err
    assert cli.status(COMMANDS, "prog", [*words, "--resume=True"]) == 0
    assert "converted 3 episodes, " in capfd.readouterr().out
    assert contents(output) == whole


def test_onto_s3_whole_or_not_at_all(
    s3: Any, raw: LocalDataset, codec: Codec, whole: dict[str, bytes], tmp_path: Path
) -> None:
    uri = "s3://bucket/team/stack"
    kills = 0
    while killed(converting(raw, codec, uri), requests, 6 + 5 * kills):
        kills += 1
        assert not storage.is_whole(uri) or contents(storage.fetch(uri)) == whole
    assert kills > 2
    assert contents(storage.fetch(uri)) == whole
    provenance = json.loads(storage.read_bytes(f"{uri}/meta/provenance.json"))
    assert [episode["frames"] for episode in provenance["episodes"]] == [13, 6, 10]
    assert not list((tmp_path / "cache" / "positronic" / "conversions").iterdir())
    with pytest.raises(StorageError, match=f"{uri} already exists"):
        convert_dataset(raw, codec, uri, FPS, HERE)
    assert convert_dataset(raw, codec, uri, FPS, GO_ON).finished_before
