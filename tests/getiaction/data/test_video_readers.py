import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import av
import numpy as np
import pytest
from lerobot.datasets.video_utils import FrameTimestampError, decode_video_frames

from getiaction.data.video_readers import Frame, PyavReader, ReaderPool

FPS = 15
LENGTH = 60
TOLERANCE_S = 1e-4
# LeRobot's default; ours; groups so long that decoding on is sooner than seeking; B-frames.
ENCODINGS = {
    "av1": ("libsvtav1", {"g": "2", "preset": "12", "svtav1-params": "lp=1"}),
    "h264": ("libx264", {"g": "2", "bf": "0"}),
    "long": ("libx264", {"g": "40", "bf": "0"}),
    "reordered": ("libx264", {"g": "12", "bf": "3"}),
}


@pytest.fixture(scope="module", params=ENCODINGS)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, options = ENCODINGS[request.param]
    path = tmp_path_factory.mktemp("videos") / f"{request.param}.mp4"
    rng = np.random.default_rng(1)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(LENGTH):
            image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def natively(path: Path, seconds: float) -> Frame:
    frames = decode_video_frames(path, [seconds], TOLERANCE_S, "pyav", return_uint8=True)
    found: Frame = frames[0].numpy()
    return found


def test_frames_are_those_that_lerobot_finds(video: Path) -> None:
    """In batches that ascend, go back, skip, repeat and follow each other."""
    reader = PyavReader(video, TOLERANCE_S)
    random.seed(4)
    scattered = [sorted(random.choices(range(LENGTH), k=6)) for _ in range(5)]
    # Times as LeRobot has them: float32 numbers, a little beside the frame on either side.
    for batch in ([3, 3, 4, 5], [LENGTH - 1], [0], *scattered, list(range(20, 44))):
        seconds = [float(np.float32(frame / FPS)) for frame in batch]
        for at, found in zip(seconds, reader.frames(seconds), strict=True):
            assert np.array_equal(found, natively(video, at)), at


def test_reading_on_needs_no_seeking(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[float] = []
    seek = PyavReader._seek

    def noted(self: PyavReader, wanted: float) -> None:
        sought.append(wanted)
        seek(self, wanted)

    monkeypatch.setattr(PyavReader, "_seek", noted)
    reader = PyavReader(video, TOLERANCE_S)
    assert len(list(reader.frames([frame / FPS for frame in range(LENGTH)]))) == LENGTH
    assert sought == [0.0]


@pytest.mark.parametrize("seconds", [LENGTH / FPS + 1, 1.5 / FPS])
def test_a_time_without_a_frame_is_lerobots_error(video: Path, seconds: float) -> None:
    with pytest.raises(FrameTimestampError) as theirs:
        natively(video, seconds)
    with pytest.raises(FrameTimestampError) as ours:
        list(PyavReader(video, TOLERANCE_S).frames([seconds]))
    assert str(ours.value) == str(theirs.value)


def test_readers_stay_open_and_are_lent_to_one_thread_at_a_time(video: Path) -> None:
    pool = ReaderPool("pyav", TOLERANCE_S)
    with pool.reader(video) as first:
        pass
    with pool.reader(video) as second:
        assert second is first
    both = Barrier(2)

    def borrowed() -> int:
        with pool.reader(video) as reader:
            both.wait(timeout=10)
            return id(reader)

    with ThreadPoolExecutor(2) as threads:
        readers = [future.result(60) for future in [threads.submit(borrowed) for _ in range(2)]]
    assert len(set(readers)) == 2


def test_a_reader_that_failed_is_not_lent_again(video: Path) -> None:
    pool = ReaderPool("pyav", TOLERANCE_S)
    with pytest.raises(FrameTimestampError), pool.reader(video) as failed:
        list(failed.frames([100.0]))
    with pool.reader(video) as fresh:
        assert fresh is not failed


def test_few_files_stay_open(video: Path, tmp_path: Path) -> None:
    """LeRobot's cache of decoders once grew with the number of files."""
    pool = ReaderPool("pyav", TOLERANCE_S, idle=2)
    paths = []
    for name in "abcd":
        paths.append(tmp_path / f"{name}.mp4")
        paths[-1].hardlink_to(video)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for path in (*paths, *paths):
        with pool.reader(path) as reader:
            list(reader.frames([0.0]))
        del reader
    assert descriptors() <= before + 2


def test_a_pool_goes_to_other_processes_without_its_readers(video: Path) -> None:
    pool = ReaderPool("pyav", TOLERANCE_S)
    with pool.reader(video) as reader:
        pass
    twin: ReaderPool = pickle.loads(pickle.dumps(pool))
    with twin.reader(video) as other:
        assert other is not reader
        assert len(list(other.frames([0.0, 1.0]))) == 2


@pytest.mark.e2e  # another process imports torch and LeRobot, and decodes what test_gather decodes
def test_torchcodec_gives_what_lerobot_gives_with_it(tmp_path: Path) -> None:
    libraries = Path(av.__file__).parents[1] / "av.libs"
    for path in (*libraries.glob("libav*-*"), *libraries.glob("libsw*-*")):
        name, version = path.name.split(".so.")
        link = tmp_path / f"{name.split('-')[0]}.so.{version.split('.')[0]}"
        link.symlink_to(path)
    # pytest comes first: what is imported before it, it cannot watch, and says so.
    program = (
        "import sys, pytest\n"
        "class Backend:\n"
        "    def pytest_sessionfinish(self):\n"
        "        from getiaction.data.frames import video_backend\n"
        "        assert video_backend() == 'torchcodec'\n"
        "tests = ['-n', '0', '-q', 'tests/getiaction/data/test_gather.py']\n"
        "sys.exit(pytest.main(tests, plugins=[Backend()]))"
    )
    env = {**os.environ, "LD_LIBRARY_PATH": f"{tmp_path}:{libraries}"}
    assert subprocess.run([sys.executable, "-c", program], env=env).returncode == 0
