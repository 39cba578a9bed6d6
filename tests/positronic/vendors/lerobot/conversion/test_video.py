import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from foundation.video import Encoder
from positronic.vendors.lerobot.conversion.encoders import ENCODERS
from positronic.vendors.lerobot.conversion.video import VideoWriter, end_real_time, join
from tests.positronic.vendors.lerobot.raw import picture


def write(path: Path, fps: int, encoder: Encoder, episode: int, frames: int) -> Path:
    with VideoWriter(path, fps, encoder) as video:
        for step in range(frames):
            video.add(picture(episode, step, 0, (64, 64)))
    assert video.frames == frames
    return path


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_joined_frames_stand_exactly_where_their_rows_do(tmp_path: Path, encoder: Encoder) -> None:
    # 7 frames at 13 a second last no whole number of microseconds, which concatenation rounds to.
    lengths = [7, 1, 2, 5] * 10
    parts = [
        write(tmp_path / f"{i}.mp4", 13, encoder, i % 3, length) for i, length in enumerate(lengths)
    ]
    assert join(parts, tmp_path / "out" / "all.mp4", 13) == sum(lengths)
    with av.open(str(tmp_path / "out" / "all.mp4")) as container:
        stream = container.streams.video[0]
        # torchcodec finds frames by their number at this rate.
        assert (stream.average_rate, stream.frames) == (13, sum(lengths))
        frames = [
            (float(frame.pts * stream.time_base), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
        ]
    assert len(frames) == sum(lengths)
    np.testing.assert_allclose([t for t, _ in frames], np.arange(len(frames)) / 13, atol=1e-9)
    shown = iter(image for _, image in frames)
    for i, length in enumerate(lengths):
        for step in range(length):
            wanted = picture(i % 3, step, 0, (64, 64)).astype(int)
            assert np.abs(next(shown).astype(int) - wanted).mean() < 4


# LeRobot takes long to import; one test process is enough to pay for it.
@pytest.mark.parametrize("fps", [7, 30])
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_lerobot_reads_the_right_frames_at_random(
    tmp_path: Path, encoder: Encoder, fps: int
) -> None:
    from lerobot.datasets.video_utils import decode_video_frames

    lengths = [7, 1, 2, 5, 4]
    wanted = [picture(i % 3, step, 0, (64, 64)) for i, n in enumerate(lengths) for step in range(n)]
    parts = [write(tmp_path / f"{i}.mp4", fps, encoder, i % 3, n) for i, n in enumerate(lengths)]
    joined = tmp_path / "all.mp4"
    join(parts, joined, fps)
    for index in np.random.default_rng(0).permutation(len(wanted)):
        both = [int(index), max(0, int(index) - 1)]  # an observation and the one before it
        times = [number / fps for number in both]
        shown = decode_video_frames(joined, times, 1e-4, "pyav", return_uint8=True)
        for number, image in zip(both, shown.permute(0, 2, 3, 1).numpy(), strict=True):
            assert np.abs(image.astype(int) - wanted[number]).mean() < 4, number


@pytest.mark.skipif(os.geteuid() != 0, reason="SVT-AV1 takes the right only where it is root's")
def test_encoding_makes_nothing_real_time(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "x.mp4", 15, ENCODERS["libsvtav1"]) as video:
        for _ in range(3):
            video.add(np.zeros((64, 64, 3), np.uint8))
        threads = os.listdir("/proc/self/task")
        assert len(threads) > 1
        found = {os.sched_getscheduler(int(thread)) for thread in threads}
        assert os.SCHED_FIFO not in found


def test_threads_that_come_and_go_disturb_nothing() -> None:
    """One may end between being listed and being asked; the episode was refused for it."""
    over = threading.Event()

    def start_others() -> None:
        while not over.is_set():
            threading.Thread(target=int).start()

    starting = threading.Thread(target=start_others)
    starting.start()
    try:
        for _ in range(2000):
            end_real_time()
    finally:
        over.set()
        starting.join()
