import io
import random
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from positronic.errors import SessionError
from positronic.offboard import jpeg, wire


def scene(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth picture with a red box on green, at whose edges halved colour would show."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 2, 60 + columns, 200 - rows], axis=-1).astype(np.uint8)
    image[10:20, 11:25] = (220, 20, 20)
    image[20:30, 11:25] = (20, 200, 20)
    return image


def compressed(image: NDArray[np.uint8], kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def message(*frames: bytes, ndim: Any = 3) -> bytes:
    return wire.pack({"image": {b"__jpeg__": True, b"frames": list(frames), b"ndim": ndim}})


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize(("quality", "at_least"), [(90, 38.0), (95, 42.0)])
def test_an_image_comes_back_in_rgb_and_close(quality: int, at_least: float) -> None:
    image = scene()
    frame = wire.pack({"image": jpeg.encode(image, quality)})
    back = wire.unpack(frame)["image"]
    assert back.dtype == np.uint8
    assert back.shape == image.shape
    assert not back.flags.writeable
    assert psnr(back, image) > at_least
    np.testing.assert_allclose(back[15, 18], [220, 20, 20], atol=6)
    assert len(frame) < image.nbytes / 4


def test_colour_is_kept_at_full_resolution() -> None:
    image = scene()
    data = jpeg.encode(image, 95)[b"frames"][0]
    halved = np.asarray(Image.open(io.BytesIO(compressed(image, quality=95, subsampling="4:2:0"))))
    whole = wire.unpack(message(data))["image"]
    errors = [np.abs(found.astype(int) - image).max() for found in (whole, halved)]
    assert errors[0] * 2 < errors[1]


def test_a_view_is_compressed_as_it_looks() -> None:
    image = scene()[::2, ::-1]
    back = wire.unpack(wire.pack(jpeg.encode(image, 95)))
    assert psnr(back, image) > 30


def test_several_frames_are_stacked() -> None:
    frames = [jpeg.encode(scene() // n, 90)[b"frames"][0] for n in (1, 2, 3)]
    back = wire.unpack(message(*frames, ndim=4))["image"]
    assert back.shape == (3, 48, 64, 3)
    assert not back.flags.writeable
    assert back[0].mean() > back[1].mean() > back[2].mean()
    assert wire.unpack(message(frames[0], ndim=4))["image"].shape == (1, 48, 64, 3)


def with_size(data: bytes, height: int, width: int) -> bytes:
    """Let the header of a JPEG file claim another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


GOOD = compressed(scene())


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (message(), "0 frames and ndim 3"),
        (message(GOOD, GOOD), "2 frames and ndim 3"),
        (message(ndim=4), "0 frames and ndim 4"),
        (message(GOOD, ndim=2), "ndim 2; expected"),
        (message(GOOD, ndim="3" * 10**4), "ndim 3333"),
        (wire.pack({b"__jpeg__": True, b"frames": "text", b"ndim": 3}), "not a list of bytes"),
        (wire.pack({b"__jpeg__": True, b"frames": [1], b"ndim": 3}), "not a list of bytes"),
        (message(GOOD, compressed(scene(16, 16)), ndim=4), "differ in size"),
        (message(b""), "not a complete JPEG"),
        (message(b"\xff\xd8\xff"), "not a complete JPEG"),
        (message(GOOD[:-200]), "not a complete JPEG"),
        (message(compressed(scene(), "PNG")), "not a complete JPEG"),
        (message(compressed(scene()[..., 0])), "unsupported JPEG image: L; expected"),
        (message(compressed(scene(), progressive=True)), "JPEG image: progressive; expected"),
        (message(with_size(GOOD, 2161, 3840 + 46)), "too large: 3886×2161"),
        (message(with_size(GOOD, 65535, 65535)), "too large"),
        (message(with_size(GOOD, 10000, 10000)), "too large"),
    ],
)
def test_what_is_no_image_of_a_camera_is_named(frame: bytes, says: str) -> None:
    with pytest.raises(SessionError, match=says) as error:
        wire.unpack(frame)
    assert len(str(error.value)) < 200


def test_the_limit_is_on_all_images_of_a_message_and_nothing_is_decoded_before() -> None:
    data = with_size(GOOD, 2048, 4096)
    many = wire.pack({str(i): {b"__jpeg__": True, b"frames": [data], b"ndim": 3} for i in range(9)})
    tracemalloc.start()
    with pytest.raises(SessionError):
        wire.unpack(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 7 * 2**23  # one of them, while it is copied
    assert wire.unpack(message(GOOD))["image"].shape == (48, 64, 3)


def test_no_frame_raises_anything_else() -> None:
    rng = random.Random(0)
    refused: list[str] = []
    for _ in range(500):
        frame = bytearray(GOOD)
        for _ in range(rng.randrange(1, 6)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        del frame[rng.randrange(len(frame) // 2, len(frame)) if rng.random() < 0.2 else 10**6 :]
        try:
            wire.unpack(message(bytes(frame)))
        except SessionError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert not any("\n" in message for message in refused)
