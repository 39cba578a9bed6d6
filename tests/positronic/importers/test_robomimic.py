import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from foundation import storage
from positronic.cli import status
from positronic.dataset import LocalDataset
from positronic.importers.robomimic import robomimic
from tests.positronic.importers.conftest import CONTROLLER, MakeFile


def run(file: Path, root: Path, *flags: str) -> int:
    return status({"robomimic": robomimic}, "positronic-import", command(file, root, *flags))


def command(file: Path, root: Path, *flags: str) -> Sequence[str]:
    return ["robomimic", str(file), f"--output_dir={root}", *flags]


def test_real_file_becomes_ten_episodes(
    sample_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "raw"
    assert run(sample_file, root) == 0
    assert "10 of 10 demos, 531 steps at 20 Hz" in capsys.readouterr().out
    dataset = LocalDataset(root)
    assert len(dataset) == 10
    episode = dataset[4]
    assert episode["task"] == "Lift the cube."
    assert episode["mask.valid"] is True
    assert episode["image.wrist"].shape == (84, 84, 3)
    assert len(episode["image.wrist"]) == len(episode["robot_commands.pose"]) + 1 == 52
    value, timestamp = episode["robot_state.q"].time[50_000_000]
    assert timestamp == 50_000_000
    with h5py.File(sample_file) as file:
        assert np.allclose(value, file["data/demo_4/obs/robot0_joint_pos"][1], atol=1e-6)


def test_cameras_are_close_to_what_was_stored(sample_file: Path, tmp_path: Path) -> None:
    assert run(sample_file, tmp_path / "raw") == 0
    episode = LocalDataset(tmp_path / "raw")[0]
    with h5py.File(sample_file) as file:
        stored = file["data/demo_0/obs/agentview_image"][30].astype(float)
    frame = episode["image.exterior"][30][0].astype(float)
    assert np.abs(frame - stored).mean() < 6


def test_one_bad_demo_does_not_cost_the_others(
    make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(file: h5py.File) -> None:
        del file["data/demo_1/obs/robot0_joint_pos"]

    assert run(make_file(demos=3, spoil=spoil), tmp_path / "raw") == 1
    out = capsys.readouterr().out
    assert "skipped: demo_1 has no 'robot0_joint_pos'" in out
    assert "2 of 3 demos" in out
    kept = [episode["robomimic.demo"] for episode in LocalDataset(tmp_path / "raw")]
    assert kept == ["demo_0", "demo_2"]


def test_demos_come_in_the_order_of_their_numbers(make_file: MakeFile, tmp_path: Path) -> None:
    assert run(make_file(demos=11, steps=2), tmp_path / "raw") == 0
    order = [episode["robomimic.demo"] for episode in LocalDataset(tmp_path / "raw")]
    assert order == [f"demo_{index}" for index in range(11)]


def test_no_good_demo_is_an_error_and_leaves_nothing(
    make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(file: h5py.File) -> None:
        del file["data/demo_0/obs"]

    assert run(make_file(demos=1, spoil=spoil), tmp_path / "raw") == 1
    assert "none of the 1 demos" in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_existing_dataset_is_added_to_only_on_demand(
    make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "raw"
    first = make_file(demos=2)
    assert run(first, root) == 0
    assert run(first, root) == 1
    assert "--append=True" in capsys.readouterr().err
    assert run(first, root, "--append=True") == 0
    assert len(LocalDataset(root)) == 2, "the demos of one file are not repeated"
    assert run(make_file(demos=3), root, "--append=True") == 0
    assert len(LocalDataset(root)) == 5


def test_a_camera_that_is_not_in_the_file_is_refused(
    make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The episodes had no image.exterior, and nothing said so."""
    assert run(make_file(demos=1), tmp_path / "raw", "--exterior_camera=front") == 2
    assert "has no camera 'front'; it has " in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_what_an_interrupted_import_left_is_added_to(make_file: MakeFile, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    (root / ".staging-1-x").mkdir(parents=True)
    assert run(make_file(demos=2), root, "--append=True") == 0
    assert len(LocalDataset(root)) == 2


def test_task_is_what_was_given_or_must_be(
    make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_file(env_name="Unheard")
    assert run(file, tmp_path / "raw") == 2
    assert "--task=" in capsys.readouterr().err
    assert run(file, tmp_path / "raw", "--task=Do the unheard.") == 0
    assert LocalDataset(tmp_path / "raw")[0]["task"] == "Do the unheard."


def test_other_cameras_keep_their_names(make_file: MakeFile, tmp_path: Path) -> None:
    def add(file: h5py.File) -> None:
        for demo in file["data"].values():
            for part in ("obs", "next_obs"):
                demo[f"{part}/sideview_image"] = demo[f"{part}/agentview_image"][()]

    assert run(make_file(spoil=add), tmp_path / "raw", "--exterior_camera=sideview") == 0
    signals = set(LocalDataset(tmp_path / "raw")[0].signals)
    assert {"image.agentview", "image.exterior", "image.wrist"} <= signals


def test_missing_targets_are_said(
    make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_file(controller=CONTROLLER | {"control_delta": False})
    assert run(file, tmp_path / "raw") == 0
    assert "no robot_commands.pose" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"not HDF5 at all", "half"])
def test_unreadable_files_give_one_line(
    make_file: MakeFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | str | None,
) -> None:
    file = tmp_path / "broken.hdf5"
    if content == "half":
        whole = make_file().read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        file.write_bytes(content)
    assert run(file, tmp_path / "raw") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert str(file) in lines[0]
    assert not (tmp_path / "raw").exists()


def test_help_needs_none_of_the_heavy_modules() -> None:
    code = (
        "import sys; from positronic.importers import main\n"
        "sys.argv = ['x', 'robomimic', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'h5py', 'pyarrow', 'av', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "--output_dir" in done.stdout


def test_files_and_datasets_may_be_in_s3(
    s3: Any, sample_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.upload_file(str(sample_file), "bucket", "sample.hdf5")
    words = ["robomimic", "s3://bucket/sample.hdf5", "--output_dir=s3://bucket/raw"]
    assert status({"robomimic": robomimic}, "positronic-import", words) == 0
    out = capsys.readouterr().out
    assert "10 of 10 demos, 531 steps at 20 Hz\n" in out
    assert "recordings: s3://bucket/raw\n" in out
    assert len(LocalDataset(storage.fetch("s3://bucket/raw"))) == 10
    assert status({"robomimic": robomimic}, "positronic-import", words) == 1
    assert "s3://bucket/raw exists already" in capsys.readouterr().err
