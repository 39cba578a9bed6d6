import numpy as np
import pytest

from positronic.codec import Image
from positronic.codec.images import resize_with_pad
from positronic.errors import CodecError


@pytest.mark.parametrize(
    ("size", "content"),
    [  # (H, W) of the frame; rows and columns of the picture inside 224x224
        ((240, 320), ((28, 196), (0, 224))),
        ((720, 1280), ((49, 175), (0, 224))),
        ((320, 240), ((0, 224), (28, 196))),
        ((224, 224), ((0, 224), (0, 224))),
        ((10, 10), ((0, 224), (0, 224))),
    ],
)
def test_bars_are_where_the_public_codec_puts_them(
    size: tuple[int, int], content: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    padded = resize_with_pad(np.full((*size, 3), 255, np.uint8), 224, 224)
    expected = np.zeros((224, 224, 3), np.uint8)
    (top, bottom), (left, right) = content
    expected[top:bottom, left:right] = 255
    np.testing.assert_array_equal(padded, expected)


def test_the_exact_size_passes_through_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    assert resize_with_pad(image, 64, 48) is image


def test_a_picture_that_stays_is_resized_once() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(2))
    codec = Image("observation.images.left", "image.wrist", (32, 32))
    frames = list(codec.encode_rows({"image.wrist": [first, first, second, first]})[codec.key])
    assert frames[1] is frames[0]
    for frame, image in zip(frames, (first, first, second, first), strict=True):
        np.testing.assert_array_equal(frame, resize_with_pad(image, 32, 32))


def test_the_filter_is_bilinear_with_antialiasing() -> None:
    # Halving averages: a checkerboard turns grey, where point sampling would keep its extremes.
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., np.newaxis], 3, axis=2).astype(np.uint8)
    small = resize_with_pad(image, 32, 32)[4:-4, 4:-4].astype(int)
    assert np.abs(small - 127).max() <= 1


def test_a_very_flat_image_keeps_a_line() -> None:
    padded = resize_with_pad(np.full((1, 1000, 3), 255, np.uint8), 8, 8)
    assert padded.any()


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, 4, 4), "64", (2.5, 2)])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(CodecError, match="give \\[height, width\\]"):
        Image("observation.images.left", "image.wrist", size)  # type: ignore[arg-type]


def test_one_number_means_a_square() -> None:
    assert Image("a", "b", 64).size == (64, 64)  # type: ignore[arg-type]
