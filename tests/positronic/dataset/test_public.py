"""Side by side with public Positronic 0.2.1: it reads what we write, we read what it reads.

Needs a Python that has it, which ours cannot be, since it wants 3.11. `scripts/public_clients`
makes one; POSITRONIC_PUBLIC_PYTHON names another.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.dataset import DatasetWriter, LocalDataset

from .conftest import NS, picture, record
from .public_reader import questions

MADE = Path(__file__).parents[3] / ".cache/public/positronic-0.2.1/bin/python"
PYTHON = os.environ.get("POSITRONIC_PUBLIC_PYTHON") or (str(MADE) if MADE.exists() else None)
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not PYTHON, reason="scripts/public_clients has not made a Python with positronic 0.2.1"
    ),
]


def public(root: Path, out: Path) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """What public Positronic reads under ``root``."""
    script = Path(__file__).with_name("public_reader.py")
    # Away from this directory and its import path, so that it cannot find our own package.
    done = subprocess.run(
        [str(PYTHON), "-I", str(script), str(root), str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        return json.loads(done.stdout), dict(arrays)


def assert_same(root: Path, out: Path) -> None:
    """Both readers see the same episodes, signals, samples and frames."""
    episodes, arrays = public(root, out)
    dataset = LocalDataset(root)
    assert len(dataset) == len(episodes)
    compared = 0
    for i, (episode, theirs) in enumerate(zip(dataset, episodes, strict=True)):
        assert episode.static == theirs["static"]
        meta = {k: v for k, v in episode.meta.items() if k != "size_mb"}
        assert meta == theirs["meta"]
        assert (episode.start_ts, episode.last_ts) == (theirs["start"], theirs["last"])
        assert episode.duration_ns == theirs["duration"]
        assert list(episode.signals) == theirs["signals"]
        for name, signal in episode.signals.items():
            views = {"all": signal}
            asked = questions(episode.start_ts, episode.last_ts)
            views |= {key: signal.time[q] for key, q in asked.items()}
            for key, view in views.items():
                where = f"{i}/{name}/{key}"
                np.testing.assert_array_equal(view.timestamps(), arrays[f"{where}/ts"], where)
                values = np.asarray(view.values())
                expected = arrays[f"{where}/values"]
                assert values.dtype == expected.dtype, where
                if values.ndim == 4:
                    # Pictures of odd size are padded to even in the file, which we crop.
                    expected = expected[:, : values.shape[1], : values.shape[2]]
                np.testing.assert_array_equal(values, expected, where)
                compared += 1
    assert compared == len(arrays) // 2 > 0


def test_public_positronic_reads_what_we_write(tmp_path: Path) -> None:
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
    assert_same(root, tmp_path / "out.npz")


def test_we_read_its_recordings_as_it_does(fixture_root: Path, tmp_path: Path) -> None:
    assert_same(fixture_root, tmp_path / "out.npz")


def test_public_positronic_continues_our_numbers(tmp_path: Path) -> None:
    record(tmp_path, frames=2, task="ours")
    code = (
        "import sys; from pathlib import Path\n"
        "from positronic.dataset.local_dataset import LocalDatasetWriter\n"
        "with LocalDatasetWriter(Path(sys.argv[1])).new_episode() as w:\n"
        "    w.append('grip', 0.5, 1); w.set_static('task', 'theirs')\n"
    )
    subprocess.run([str(PYTHON), "-I", "-c", code, str(tmp_path)], check=True, cwd="/")
    record(tmp_path, frames=2, task="ours again")
    dataset = LocalDataset(tmp_path)
    assert [episode["task"] for episode in dataset] == ["ours", "theirs", "ours again"]
    assert dataset[1]["grip"].time[5] == (0.5, 1)
