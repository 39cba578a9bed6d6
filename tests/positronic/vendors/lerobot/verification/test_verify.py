"""Every kind of damage, really done to a converted dataset, is named; healthy ones have none."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from foundation.video import Encoder
from positronic import cli
from positronic.dataset import LocalDataset
from positronic.errors import DatasetError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import dataset_writer
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.conversion.video import VideoWriter, join
from positronic.vendors.lerobot.dataset.layout import Clip, Episode
from positronic.vendors.lerobot.verification.processes import processes
from positronic.vendors.lerobot.verification.verify import verify, verify_dataset
from positronic.vendors.lerobot.verification.video_checks import PacketsCheck
from tests.positronic.vendors.lerobot.raw import FPS, picture, record
from tests.positronic.vendors.lerobot.verification.damage import (
    DAMAGES,
    DATA,
    LEFT,
    SIZE,
    TABLE,
    cut,
    drop_row,
    edit,
    garble,
    nan_state,
    put,
)

LENGTHS = (13, 6, 10)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    root = tmp_path_factory.mktemp("raw")
    for index, length in enumerate(LENGTHS):
        record(root, index, steps=length - 1, statics={"task": "odd" if index % 2 else "even"})
    return LocalDataset(root)


@pytest.fixture(scope="module")
def converted(raw: LocalDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("converted")
    codec = codecs.eepose_absolute(image_size=SIZE)
    for name, video in (("video", True), ("pictures", False)):
        convert_dataset(raw, codec, root / name, FPS, Options(workers=1, video=video))
    return {"video": root / "video", "pictures": root / "pictures"}


@pytest.fixture
def dataset(converted: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(converted["video"], tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def pictures(converted: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(converted["pictures"], tmp_path / "pictures")
    return tmp_path / "pictures"


def faults(root: Path, **options: Any) -> list[str]:
    return [str(fault) for fault in verify_dataset(root, workers=1, **options).faults]


@pytest.mark.parametrize("name", ["video", "pictures"])
def test_what_we_convert_is_whole(converted: dict[str, Path], name: str) -> None:
    verdict = verify_dataset(converted[name], workers=1)
    assert (verdict.faults, verdict.notes) == ((), ())
    assert (verdict.episodes, verdict.frames, verdict.cameras) == (3, 29, 2)


@pytest.mark.parametrize("video", [True, False], ids=["video", "pictures"])
def test_what_lerobot_writes_is_whole(tmp_path: Path, video: bool) -> None:
    from lerobot.datasets import LeRobotDataset

    vector = {"dtype": "float32", "names": None}
    camera = {"dtype": "video" if video else "image", "shape": (48, 64, 3)}
    features = {
        "observation.state": vector | {"shape": (3,)},
        "action": vector | {"shape": (1,)},
        "observation.images.top": camera | {"names": ["height", "width", "channels"]},
    }
    root = tmp_path / "native"
    native = LeRobotDataset.create("local", fps=15, features=features, root=root, use_videos=video)
    rng = np.random.default_rng(0)
    for episode, length in enumerate((5, 20, 3)):
        for step in range(length):
            frame: dict[str, Any] = {
                "observation.state": rng.normal(size=3).astype(np.float32) * 100,
                "action": rng.normal(size=1).astype(np.float32),
                "observation.images.top": picture(episode, step, 0, (48, 64)),
            }
            native.add_frame(frame | {"task": f"task {episode % 2}"})
        native.save_episode()
    native.finalize()
    verdict = verify_dataset(root, workers=1)
    assert verdict.faults == ()
    assert "has no contract" in verdict.notes[0]
    stats = {**json.loads((root / "meta/stats.json").read_text())}
    stats["observation.state"]["std"][1] *= 1.1
    (root / "meta/stats.json").write_text(json.dumps(stats))
    assert "meta/stats.json: observation.state: std[1] is" in faults(root)[0]


@pytest.mark.parametrize(
    ("damage", "expected"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES]
)
def test_damage_is_named(
    dataset: Path, damage: Callable[[Path], object], expected: list[str]
) -> None:
    damage(dataset)
    found = "\n".join(faults(dataset))
    for text in expected:
        for short, name in (("DATA", DATA), ("TABLE", TABLE), ("LEFT", LEFT)):
            text = text.replace(short, name)
        assert text in found, found


def test_damaged_pictures_are_named(pictures: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        file = table["observation.images.left"][4].as_py()["bytes"]
        table = put(table, "observation.images.left", 4, {"bytes": file[:60], "path": None})
        return put(table, "observation.images.side", 20, {"bytes": file, "path": None})

    edit(pictures, DATA, change)
    broken, other = faults(pictures)
    assert f"{DATA}: episode 0: observation.images.left of frame 4 cannot be decoded" in broken
    assert f"{DATA}: episode 2: statistics of observation.images.side" in other
    assert len(faults(pictures, decode=False)) == 0


def test_without_decoding_times_are_checked_all_the_same(dataset: Path) -> None:
    garble(dataset)
    assert faults(dataset, decode=False) == []
    cut(LEFT, 0.6)(dataset)
    assert "is not in the file" in "\n".join(faults(dataset, decode=False))


def test_processes_find_the_same(dataset: Path) -> None:
    garble(dataset)
    nan_state(dataset)
    assert [str(f) for f in verify_dataset(dataset, workers=2).faults] == faults(dataset)


def _die(check: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_reported() -> None:
    with pytest.raises(DatasetError, match="was killed, .*--workers=1"), processes(2) as run_all:
        list(run_all(_die, [PacketsCheck(Path(), "", "", {}, 1, ())]))


def test_several_files_are_told_apart(
    raw: LocalDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of one episode each: rows and frames are looked for where they are."""
    from lerobot.datasets import dataset_metadata

    create = dataset_metadata.create_empty_dataset_info

    def of_small_files(*args: Any, **options: Any) -> Any:
        made = create(*args, **options)
        made.data_files_size_in_mb = made.video_files_size_in_mb = 1e-6
        return made

    monkeypatch.setattr(dataset_metadata, "create_empty_dataset_info", of_small_files)
    root = tmp_path / "out"
    codec = codecs.eepose_absolute(image_size=SIZE)
    convert_dataset(raw, codec, root, FPS, Options(workers=1))
    assert len(list(root.glob("data/*/*"))) == 3
    assert len(list(root.glob("videos/*/*/*"))) == 6
    assert faults(root) == []
    (root / "data/chunk-000/file-001.parquet").rename(root / "moved")
    shutil.copy(root / "data/chunk-000/file-002.parquet", root / "data/chunk-000/file-001.parquet")
    found = "\n".join(faults(root))
    assert "data/chunk-000/file-001.parquet: episode 1: has 0 rows, expected 6" in found
    assert "file-001.parquet: episode 2: has rows in this file" in found


def test_frames_that_lerobot_would_refuse_are_named(tmp_path: Path) -> None:
    """Late in a file float32, in which LeRobot compares, is coarser than what it tolerates."""
    from lerobot.datasets.video_utils import FrameTimestampError, decode_video_frames

    fps, start, length = 7, 4186, 3000
    encoder = Encoder("h264", "yuv420p", {"preset": "ultrafast", "g": "2", "bf": "0"})
    with VideoWriter(tmp_path / "part.mp4", fps, encoder) as video:
        for _ in range(start + length):
            video.add(np.zeros((16, 16, 3), dtype=np.uint8))
    join([tmp_path / "part.mp4"], tmp_path / "file.mp4", fps)
    feature = {"dtype": "video", "shape": (16, 16, 3)}
    episodes = []
    for index, (begin, end) in enumerate(((0, start), (start, start + length))):
        clip = Clip("file.mp4", begin / fps, end / fps)
        episodes.append(Episode(index, end - begin, begin, end, (), "", "", {"camera": clip}))
    check = PacketsCheck(tmp_path, "camera", "file.mp4", feature, fps, episodes)
    (fault,) = check.run()
    assert fault.episode == 1
    assert fault.text.startswith("frame 2984 is at 1024.285714 s, LeRobot looks for it at")
    for frame, refused in ((2983, False), (2984, True)):
        asked = start / fps + float(np.float32(frame / fps))
        with pytest.raises(FrameTimestampError) if refused else nullcontext():
            decode_video_frames(tmp_path / "file.mp4", [asked], 1e-4, "pyav")


def test_no_video_of_ours_is_that_long(
    raw: LocalDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_writer, "LONGEST_VIDEO_S", 1.0)
    root, codec = tmp_path / "out", codecs.eepose_absolute(image_size=SIZE)
    convert_dataset(raw, codec, root, FPS, Options(workers=1))
    assert faults(root) == []
    with av.open(str(root / LEFT)) as container:
        assert container.streams.video[0].frames == LENGTHS[0]
    assert len(list((root / LEFT).parent.iterdir())) == 3


def run(*words: str) -> int:
    return cli.status({"verify": verify}, "positronic-to-lerobot", ["verify", *words])


def test_the_command(dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(f"--dataset_root={dataset}", "--workers=1") == 0
    captured = capfd.readouterr()
    whole = f"{dataset} is valid: 3 episodes, 29 frames, 2 cameras, every frame decoded\n"
    assert captured.out == whole
    assert "decoding: 100%" in captured.err
    drop_row(dataset)
    assert run(f"--dataset_root={dataset}", "--workers=1", "--decode=False") == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(f"fault: {DATA}: episode 1: has 5 rows")
    assert lines[-1].startswith(f"{dataset} is damaged: ")
    for words, message in (
        ([f"--dataset_root={dataset / 'data'}"], "has no meta/info.json"),
        ([f"--dataset_root={dataset / 'nowhere'}"], "nowhere"),
        ([f"--dataset_root={dataset}", "--workers=0"], "expected 1 or more"),
    ):
        assert run(*words) != 0
        error = capfd.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1


def test_s3(dataset: Path, s3: Any, capfd: pytest.CaptureFixture[str]) -> None:
    from foundation import storage

    storage.publish(dataset, "s3://bucket/datasets/one")
    capfd.readouterr()
    assert run("--dataset_root=s3://bucket/datasets/one", "--workers=1") == 0
    assert "s3://bucket/datasets/one is valid" in capfd.readouterr().out
