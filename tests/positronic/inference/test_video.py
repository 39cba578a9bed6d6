import io

import av
import numpy as np
import pytest

from positronic.inference.video import GAP, encode_mp4, side_by_side


def test_cameras_stand_side_by_side_on_an_even_canvas() -> None:
    left = np.full((5, 7, 3), 10, np.uint8)
    right = np.full((3, 4, 3), 20, np.uint8)
    canvas = side_by_side([left, right])
    assert canvas.shape == (6, 7 + GAP + 4 + 1, 3)
    assert (canvas[:5, :7] == 10).all()
    assert (canvas[:3, 7 + GAP : 7 + GAP + 4] == 20).all()
    assert (canvas[5] == 0).all()


def test_video_has_all_frames_at_the_right_speed() -> None:
    levels = np.linspace(20, 220, 30).astype(np.uint8)
    data, size = encode_mp4((np.full((48, 64, 3), v, np.uint8) for v in levels), fps=15)
    assert size == (64, 48)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 15
        assert float(stream.duration * stream.time_base) == pytest.approx(2.0, abs=1e-3)
        frames = [f.to_ndarray(format="rgb24").mean() for f in container.decode(stream)]
    np.testing.assert_allclose(frames, levels, atol=4)


def test_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="no frames"):
        encode_mp4([], fps=15)
