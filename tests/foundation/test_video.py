import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import pytest

from foundation.video import Encoder, VideoFile, even

X264 = Encoder("libx264", "yuv420p", {"crf": "12", "preset": "ultrafast", "threads": "1"})
LEVELS = np.linspace(20, 220, 40).astype(np.uint8)


def encode(target: Path | BinaryIO, fps: float, encoder: Encoder = X264) -> VideoFile:
    """Pictures of rising brightness, all in the same memory."""
    picture = np.zeros((48, 64, 3), np.uint8)
    with VideoFile(target, fps, encoder) as video:
        for level in LEVELS:
            picture[:] = level
            video.add(picture)
    return video


def decoded(source: Any) -> tuple[list[float], list[float], Fraction]:
    """Times of the pictures, their mean brightness, and the rate that the file states."""
    with av.open(source) as container:
        stream = container.streams.video[0]
        frames = [
            (float(f.pts * stream.time_base), float(f.to_ndarray(format="rgb24").mean()))
            for f in container.decode(stream)
        ]
        times, levels = zip(*frames, strict=True)
        return list(times), list(levels), stream.average_rate


@pytest.mark.parametrize(("fps", "rate"), [(15, 15), (29.97, Fraction(2997, 100)), (7.5, 7.5)])
@pytest.mark.parametrize("bframes", ["0", "3"])
def test_every_picture_is_there_at_its_time(
    tmp_path: Path, fps: float, rate: Fraction, bframes: str
) -> None:
    encoder = Encoder("libx264", "yuv420p", {**X264.options, "bf": bframes})
    video = encode(tmp_path / "x.mp4", fps, encoder)
    assert (video.frames, video.size) == (len(LEVELS), (64, 48))
    times, levels, stated = decoded(str(tmp_path / "x.mp4"))
    assert stated == rate
    np.testing.assert_allclose(times, np.arange(len(LEVELS)) / fps, atol=1e-4)
    np.testing.assert_allclose(levels, LEVELS, atol=4)


def test_a_stream_gets_what_a_file_does(tmp_path: Path) -> None:
    encode(tmp_path / "x.mp4", 15)
    buffer = io.BytesIO()
    encode(buffer, 15)
    buffer.seek(0)
    found, expected = decoded(buffer), decoded(str(tmp_path / "x.mp4"))
    assert found[0] == expected[0]
    np.testing.assert_allclose(found[1], expected[1], atol=1)


def test_options_reach_the_encoder(tmp_path: Path) -> None:
    options = {"crf": "31", "preset": "ultrafast", "g": "7", "bf": "0", "threads": "1"}
    encode(tmp_path / "x.mp4", 15, Encoder("h264", "yuv444p", options))
    content = (tmp_path / "x.mp4").read_bytes()  # x264 writes its settings into the first picture
    for setting in (b" crf=31.0 ", b" keyint=7 ", b" bframes=0 ", b" threads=1 ", b" me=dia "):
        assert setting in content
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p"


def test_rows_that_do_not_lie_together_are_encoded_as_they_look(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24] = 200
    with VideoFile(tmp_path / "x.mp4", 15, X264) as video:
        video.add(picture[::-1])
    with av.open(str(tmp_path / "x.mp4")) as container:
        (frame,) = (f.to_ndarray(format="rgb24") for f in container.decode(video=0))
    assert frame[:24].mean() < 10 < 190 < frame[24:].mean()


def test_an_error_costs_what_the_encoder_still_holds(tmp_path: Path) -> None:
    """A file that was not finished must not pass for a whole one."""
    encoder = Encoder("libx264", "yuv420p", {**X264.options, "bf": "3", "rc-lookahead": "20"})

    def fall() -> None:
        with VideoFile(tmp_path / "x.mp4", 15, encoder) as video:
            for _ in LEVELS:
                video.add(np.zeros((48, 64, 3), np.uint8))
            raise RuntimeError("the robot fell")

    with pytest.raises(RuntimeError, match="fell"):
        fall()
    assert 0 < len(decoded(str(tmp_path / "x.mp4"))[0]) < len(LEVELS)


def test_without_pictures_it_can_be_closed(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "x.mp4", 15, X264) as video:
        pass
    assert video.frames == 0


def test_a_colon_in_a_path_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode(Path("take:1.mp4"), 15)
    assert len(decoded(str(tmp_path / "take:1.mp4"))[0]) == len(LEVELS)


def test_odd_sides_are_made_even_by_repeating_the_last_pixels() -> None:
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    larger = even(picture)
    assert larger.shape == (6, 8, 3)
    np.testing.assert_array_equal(larger[:5, :7], picture)
    np.testing.assert_array_equal(larger[5, :7], picture[4])
    np.testing.assert_array_equal(larger[:, 7], larger[:, 6])
    assert even(larger) is larger


def test_pyav_is_loaded_only_for_a_file() -> None:
    program = "import sys, foundation.video; sys.exit('av' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
