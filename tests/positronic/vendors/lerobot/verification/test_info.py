"""What `info` says of datasets, and that it neither loads torch nor fetches more than ``meta/``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from positronic import cli
from positronic.dataset import LocalDataset
from positronic.source import commit
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.verification.info import info
from tests.positronic.vendors.lerobot.raw import FPS, record


def lines_of(capfd: pytest.CaptureFixture[str], root: Path | str) -> list[str]:
    words = ["info", f"--dataset_root={root}"]
    assert cli.status({"info": info}, "positronic-to-lerobot", words) == 0
    return [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("info")
    for index, steps in enumerate((12, 5, 9)):
        record(root / "raw", index, steps=steps, statics={"task": "odd" if index % 2 else "even"})
    record(root / "raw", 3, without=("grip",))
    codec = codecs.eepose_absolute(image_size=(32, 48))
    convert_dataset(LocalDataset(root / "raw"), codec, root / "out", FPS, Options(workers=1))
    return root / "out"


def test_it_says_what_is_there(dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    lines = lines_of(capfd, dataset)
    files = [path for path in dataset.rglob("*") if path.is_file()]
    video = dataset / "videos/observation.images.left/chunk-000/file-000.mp4"
    for expected in (
        "episodes 3, 0.4 s to 0.9 s long",
        "frames 29 at 15 fps, 0.00 h",
        f"size {sum(path.stat().st_size for path in files) / 1000:.1f} kB in {len(files)} files",
        "feature observation.state: float32 8 (robot_state.ee_pose, grip)",
        "task 'even': 2 episodes",
        "task 'odd': 1 episodes",
        "codec eepose_absolute",
        "left out 1 recordings that were refused",
    ):
        assert expected in lines
    (camera,) = [line for line in lines if line.startswith("camera observation.images.left")]
    assert "h264 32x48" in camera
    assert "g 2" in camera
    assert f"{video.stat().st_size / 1000:.1f} kB" in camera


def test_every_commit_that_wrote_is_named(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataset, tmp_path / "out")
    file = tmp_path / "out/meta/provenance.json"
    document = json.loads(file.read_text())
    assert document["commit"] == commit()
    for own, appended, expected in (
        ("aa", [{"commit": "aa"}, {"commit": "bb-dirty"}, {}], ["commit aa, bb-dirty"]),
        (None, [{"commit": None}], []),
    ):
        file.write_text(json.dumps(document | {"commit": own, "appended": appended}))
        lines = lines_of(capfd, tmp_path / "out")
        assert [line for line in lines if line.startswith("commit")] == expected


def test_it_loads_neither_torch_nor_lerobot(dataset: Path) -> None:
    program = (
        "import sys; from positronic.vendors.lerobot.verification.info import info;"
        f" info(dataset_root={str(dataset)!r});"
        " assert not {'torch', 'lerobot', 'pandas'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_damage_is_one_line(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["info", f"--dataset_root={tmp_path}"]
    assert cli.status({"info": info}, "positronic-to-lerobot", words) == 1
    assert "is not a LeRobot dataset: it has no meta/info.json" in capfd.readouterr().err
    (tmp_path / "meta").mkdir()
    document = json.loads((dataset / "meta/info.json").read_text())
    old = json.dumps(document | {"codebase_version": "v2.1"})
    (tmp_path / "meta/info.json").write_text(old)
    assert cli.status({"info": info}, "positronic-to-lerobot", words) == 1
    error = capfd.readouterr().err.strip()
    assert "meta/info.json: the dataset is of LeRobot's format v2.1, expected v3.0" in error
    assert len(error.splitlines()) == 1


def test_of_s3_only_meta_is_fetched(
    dataset: Path, faulty: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    storage.publish(dataset, "s3://bucket/out")
    capfd.readouterr()
    faulty.requests.clear()
    lines = lines_of(capfd, "s3://bucket/out")
    assert lines[0] == "dataset s3://bucket/out"
    assert lines[1:] == lines_of(capfd, dataset)[1:]
    read = {path.split("?")[0] for method, path in faulty.requests if method == "GET"}
    assert any("meta/info.json" in path for path in read)
    assert not [path for path in read if "/data/" in path or "/videos/" in path]
