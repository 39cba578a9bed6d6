from pathlib import Path

import av
import numpy as np
import pytest

from positronic.vendors.lerobot.video import Encoder, VideoWriter, join
from tests.positronic.vendors.lerobot.raw import picture

H264 = Encoder("h264", "yuv420p", {"g": "2", "crf": "23", "bf": "0", "threads": "1"})
AV1 = Encoder("libsvtav1", "yuv420p", {"g": "2", "crf": "30", "preset": "12"})


def write(path: Path, fps: int, encoder: Encoder, episode: int, frames: int) -> Path:
    with VideoWriter(path, fps, encoder) as video:
        for step in range(frames):
            video.add(picture(episode, step, 0, (64, 64)))
    assert video.frames == frames
    return path


@pytest.mark.parametrize("encoder", [H264, AV1], ids=["h264", "av1"])
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
