import fcntl
import gc
import json
import logging
import os
import pickle
import shutil
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from getiaction.data import frame_cache
from getiaction.data.frame_cache import CacheLimits, MappedFrames, digest_of, kept_on_disk
from getiaction.data.frames import VideoFrames, decode_into
from getiaction.errors import GetiactionError
from tests.getiaction.data.test_gather import opened
from tests.waiting import join

# 28 frames of two 32x32 cameras.
SIZE = 28 * 2 * 3 * 32 * 32


def videos(root: Path, **options: Any) -> VideoFrames:
    dataset = opened(root, None, **options)
    timestamps = dataset.hf_dataset.with_format("numpy")["timestamp"][:]
    return VideoFrames(dataset, np.asarray(timestamps, np.float32))


@pytest.fixture
def frames(image_root: Path) -> VideoFrames:
    return videos(image_root)


@pytest.fixture
def limits(tmp_path: Path) -> CacheLimits:
    return CacheLimits(directory=tmp_path / "frames")


@pytest.fixture
def entry(frames: VideoFrames, limits: CacheLimits) -> Path:
    """Frames that an earlier run kept."""
    kept_on_disk(frames, limits)
    gc.collect()
    assert limits.directory is not None
    return limits.directory / digest_of(frames)


def assert_right(kept: MappedFrames, frames: VideoFrames) -> None:
    rows = np.arange(len(frames))
    for key in frames.keys:
        assert np.array_equal(kept.read(key, rows), frames.read(key, rows)), key


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each time that all frames are decoded."""
    times: list[int] = []

    def noted(*args: Any) -> None:
        times.append(len(times))
        decode_into(*args)

    monkeypatch.setattr(frame_cache, "decode_into", noted)
    return times


def test_a_later_run_decodes_nothing(
    frames: VideoFrames, limits: CacheLimits, entry: Path, decoding: list[int]
) -> None:
    assert_right(kept_on_disk(frames, limits), frames)
    assert decoding == []


def test_a_copy_of_the_dataset_is_the_same_dataset(
    image_root: Path, frames: VideoFrames, tmp_path: Path
) -> None:
    copied = shutil.copytree(image_root, tmp_path / "copy")
    assert digest_of(videos(copied)) == digest_of(frames)
    changed = next((copied / "videos").rglob("*.mp4"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    tolerant = videos(image_root)
    tolerant.tolerance_s = 0.01
    others = [videos(copied), videos(image_root, episodes=[0, 1]), tolerant, frames]
    assert len({digest_of(other) for other in others}) == len(others)


def cut(entry: Path) -> None:
    next(entry.glob("observation*")).open("r+").truncate(1000)


def blank(entry: Path) -> None:
    path = next(entry.glob("observation*"))
    path.write_bytes(bytes(path.stat().st_size))


def without_a_file(entry: Path) -> None:
    next(entry.glob("observation*")).unlink()


def without_sense(entry: Path) -> None:
    (entry / "entry.json").write_text("{")


def without_a_camera(entry: Path) -> None:
    (entry / "entry.json").write_text(json.dumps({"observation.images.left": [28, 3, 32, 32]}))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("damage", [cut, blank, without_a_file, without_sense, without_a_camera])
def test_what_is_not_whole_is_decoded_again(
    frames: VideoFrames,
    limits: CacheLimits,
    entry: Path,
    decoding: list[int],
    caplog: pytest.LogCaptureFixture,
    damage: Any,
) -> None:
    damage(entry)
    assert_right(kept_on_disk(frames, limits), frames)
    assert decoding == [0]
    assert "decoding again, because" in caplog.text


def test_a_killed_process_leaves_nothing_that_is_trusted(
    frames: VideoFrames, limits: CacheLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.directory is not None

    def killed(frames: VideoFrames, targets: Any) -> None:
        for target in targets.values():
            target[:] = 7
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests left threads behind
        child = os.fork()
    if child == 0:
        monkeypatch.setattr(frame_cache, "decode_into", killed)
        kept_on_disk(frames, limits)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    digest = digest_of(frames)
    assert {path.name for path in limits.directory.iterdir()} == {
        f"{digest}.partial",
        f"{digest}.lock",
    }
    assert_right(kept_on_disk(frames, limits), frames)
    assert not (limits.directory / f"{digest}.partial").exists()


def test_what_a_killed_process_left_of_other_datasets_is_removed(
    frames: VideoFrames, limits: CacheLimits
) -> None:
    assert limits.directory is not None
    left, busy = limits.directory / "left.partial", limits.directory / "busy.partial"
    for path in (left, busy):
        path.mkdir(parents=True)
        (path / "part").write_bytes(bytes(100))
        path.with_suffix(".lock").touch()
    with busy.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept_on_disk(frames, limits)
    assert not left.exists()
    assert busy.exists()


def test_an_interrupt_leaves_nothing(
    frames: VideoFrames, limits: CacheLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(frame_cache, "decode_into", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept_on_disk(frames, limits)
    assert limits.directory is not None
    assert [path.suffix for path in limits.directory.iterdir()] == [".lock"]


def test_others_wait_for_the_one_that_decodes(
    frames: VideoFrames,
    limits: CacheLimits,
    decoding: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert limits.directory is not None
    limits.directory.mkdir()
    found: list[MappedFrames] = []
    waiting = [
        threading.Thread(target=lambda: found.append(kept_on_disk(frames, limits)))
        for _ in range(2)
    ]
    with (limits.directory / f"{digest_of(frames)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for thread in waiting:
            thread.start()
        deadline = time.monotonic() + 10
        while caplog.text.count("waiting for another process") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert found == []
    join(waiting, "those who wait for the decoder")
    assert decoding == [0]
    for kept in found:
        assert_right(kept, frames)


def test_the_oldest_that_is_not_in_use_makes_room(image_root: Path, tmp_path: Path) -> None:
    directory = tmp_path / "frames"
    parts = [videos(image_root, episodes=[episode]) for episode in (0, 1, 2)]
    kept = [kept_on_disk(part, CacheLimits(directory=directory)) for part in parts]
    entries = [directory / digest_of(part) for part in parts]
    for age, entry in enumerate(entries):
        os.utime(entry / "entry.json", (1000 + age, 1000 + age))
    del kept[1:]
    gc.collect()
    # The first and oldest is read from; without the second there is room.
    limits = CacheLimits(disk=SIZE * 40 // 28, directory=directory)
    kept_on_disk(videos(image_root, episodes=[1, 2]), limits)
    assert [entry.exists() for entry in entries] == [True, False, True]
    assert_right(kept[0], parts[0])


def test_no_room_is_said_in_a_line(frames: VideoFrames, tmp_path: Path) -> None:
    limits = CacheLimits(disk=SIZE - 1, directory=tmp_path / "frames")
    with pytest.raises(
        GetiactionError, match=r"take 0.0 GiB, but only 0.0 GiB are available in .*; ra"
    ):
        kept_on_disk(frames, limits)


def test_a_place_that_cannot_be_written_is_said_in_a_line(
    frames: VideoFrames, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        GetiactionError, match=r"cannot be cached in .*file/frames: Not a directory"
    ):
        kept_on_disk(frames, CacheLimits(directory=tmp_path / "file/frames"))


def test_worker_processes_map_the_same_files(
    frames: VideoFrames, limits: CacheLimits, entry: Path
) -> None:
    kept = kept_on_disk(frames, limits)
    sent = pickle.dumps(kept)
    assert len(sent) < 2000
    assert_right(pickle.loads(sent), frames)
