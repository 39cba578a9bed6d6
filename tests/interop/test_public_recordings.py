"""Recordings side by side with public Positronic: it reads what we write, we read what it reads."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.dataset import DatasetWriter, LocalDataset, load_all_datasets
from positronic.dataset.conventions import OPEN_0, grip_convention
from tests.interop.clients.recordings import questions
from tests.interop.conftest import CLIENTS, Public
from tests.positronic.dataset.conftest import FIXTURE, NS, picture, record

pytestmark = pytest.mark.e2e

OLD, NEW = "positronic-0.2.1", "positronic-0.4.1"


def call(python: Path, *words: object) -> str:
    # Away from this directory and its import path, so that it cannot find our own package.
    done = subprocess.run(
        [str(word) for word in (python, "-I", *words)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(python: Path, root: Path, out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What public Positronic reads under ``root``."""
    printed = call(python, CLIENTS / "recordings.py", root, out)
    with np.load(out) as arrays:
        return json.loads(printed), dict(arrays)


def assert_same(python: Path, root: Path, out: Path) -> LocalDataset:
    """Both readers see the same episodes, signals, samples and frames."""
    episodes, arrays = read(python, root, out)
    dataset = LocalDataset(root)
    assert len(dataset) == len(episodes)
    compared = 0
    for i, (episode, theirs) in enumerate(zip(dataset, episodes, strict=True)):
        assert episode.static == theirs["static"]
        meta = {k: v for k, v in episode.meta.items() if k != "size_mb"}
        assert meta == {k: v for k, v in theirs["meta"].items() if k in meta}
        # Since 0.4 it says here what it calls a recording that has no name of its own.
        assert episode.uid == theirs["meta"].get("uid", episode.uid)
        assert meta.keys() >= theirs["meta"].keys() - {"uid"}
        assert (episode.start_ts, episode.last_ts) == (theirs["start"], theirs["last"])
        assert episode.duration_ns == theirs["last"] - theirs["start"]
        assert list(episode.signals) == theirs["signals"]
        for name, signal in episode.signals.items():
            asked = questions(episode.start_ts, episode.last_ts).items()
            views = {"all": signal, **{key: signal.time[q] for key, q in asked}}
            for key, view in views.items():
                where = f"{i}/{name}/{key}"
                np.testing.assert_array_equal(view.timestamps(), arrays[f"{where}/ts"], where)
                assert_equal(np.asarray(view.values()), arrays[f"{where}/values"], where)
                compared += 1
    assert compared == len(arrays) // 2 > 0
    return dataset


def assert_equal(values: NDArray[Any], expected: NDArray[Any], where: str) -> None:
    assert values.dtype == expected.dtype, where
    if values.ndim == 4:
        # Pictures of odd size are padded to even in the file, which we crop.
        expected = expected[:, : values.shape[1], : values.shape[2]]
    np.testing.assert_array_equal(values, expected, where)


@pytest.mark.parametrize("release", [OLD, NEW])
def test_public_positronic_reads_what_we_write(
    public: Public, release: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    record(root, frames=100, task="stack", joint_names=["a", "b"], nested={"open": 1.0})
    record(root, frames=40, size=(47, 63))
    with DatasetWriter(root).new_episode() as writer:
        for i in range(12_000):
            t = NS + i * 2_000_000
            lines = {"message": t + 1, "system": t + 2, "world": t + 3}
            writer.append("robot_state.ee_pose", np.arange(7.0) + i, t + 5, lines)
            writer.append("count", i, t)
            if i % 100 == 0:
                writer.append("image.exterior", picture(i // 200), t + 77, lines)
        writer.set_static("simulation.seed", 7)
    assert_same(public(release) / "python", root, tmp_path / "out.npz")


@pytest.mark.parametrize("release", [OLD, NEW])
def test_we_read_recordings_of_0_2_1_as_it_does(
    public: Public, release: str, tmp_path: Path
) -> None:
    if not FIXTURE.is_dir():
        pytest.skip(f"the recordings of public Positronic are not at {FIXTURE}")
    assert_same(public(release) / "python", FIXTURE, tmp_path / "out.npz")


def test_we_read_recordings_of_0_4_1_as_it_does(public: Public, tmp_path: Path) -> None:
    python = public(NEW) / "python"
    call(python, CLIENTS / "record_0_4_1.py", tmp_path / "root")
    robot, plain = assert_same(python, tmp_path / "root", tmp_path / "out.npz")
    assert robot["grip"].start_ts == 6_000_000  # when the recorder had it, by the world's clock
    assert grip_convention(robot) == OPEN_0
    assert plain["q"].last_ts == 950_000_000


def test_0_4_1_drops_what_we_drop(public: Public, tmp_path: Path) -> None:
    for task in "abcd":
        record(tmp_path, frames=2, task=task)
    recordings = LocalDataset(tmp_path)
    recordings.drop(recordings[0].uid, "spilled")
    recordings.drop(recordings[1].uid)
    recordings.undrop(recordings[1].uid)
    recordings.set_static(recordings[2].uid, {"task": "e"})
    code = (
        "import sys; from pathlib import Path\n"
        "from positronic.dataset.local_dataset import load_dataset\n"
        "print(*[episode['task'] for episode in load_dataset(Path(sys.argv[1]))])\n"
    )
    theirs = call(public(NEW) / "python", "-c", code, tmp_path).split()
    assert theirs == [episode["task"] for episode in load_all_datasets(tmp_path)] == ["b", "e", "d"]


def test_public_positronic_continues_our_numbers(public: Public, tmp_path: Path) -> None:
    record(tmp_path, frames=2, task="ours")
    code = (
        "import sys; from pathlib import Path\n"
        "from positronic.dataset.local_dataset import LocalDatasetWriter\n"
        "with LocalDatasetWriter(Path(sys.argv[1])).new_episode() as w:\n"
        "    w.append('grip', 0.5, 1); w.set_static('task', 'theirs')\n"
    )
    call(public(OLD) / "python", "-c", code, tmp_path)
    record(tmp_path, frames=2, task="ours again")
    dataset = LocalDataset(tmp_path)
    assert [episode["task"] for episode in dataset] == ["ours", "theirs", "ours again"]
    assert dataset[1]["grip"].time[5] == (0.5, 1)
