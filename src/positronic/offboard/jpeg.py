"""Images as JPEG on the wire: ``{b"__jpeg__": True, b"frames": [bytes, ...], b"ndim": 3 or 4}``.

``ndim`` 3 is one image uint8 ``(H, W, 3)`` in RGB, 4 is ``(N, H, W, 3)``. Public Positronic
clients use the same form.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import SessionError

MARKER = b"__jpeg__"
MAX_IMAGES = 64
"""Images of a message; each costs some time, however small it is."""
MAX_BYTES = 6 * 2**20
"""Bytes of all JPEG images of a message together: decoding takes about 10 ms a megabyte."""
MAX_PIXELS = 2**23
"""Pixels of all JPEG images of a message, such as four of 1920 × 1080: 25 MB. A few hundred kB
of black would otherwise decode to gigabytes."""

_MALFORMED = "malformed JPEG image: a frame is not a complete JPEG file"
_BASELINE = (0xC0, 0xC1)
_START_OF_FRAME = {
    **dict.fromkeys(range(0xC0, 0xD0), "of a rare kind"),
    **dict.fromkeys((0xC2, 0xC6, 0xCA, 0xCE), "progressive"),
}
for _other in (0xC4, 0xC8, 0xCC):  # tables
    del _START_OF_FRAME[_other]
_START_OF_SCAN = 0xDA
# Segments of a header: those of cameras have about ten. Scans: one for each colour.
_MAX_SEGMENTS, _MAX_SCANS = 64, 3


def encode(image: NDArray[np.uint8], quality: int) -> dict[bytes, Any]:
    """Compress ``(H, W, 3)`` RGB.

    Chroma is kept at full resolution (4:4:4): the usual subsampling saves a fifth of the bytes and
    0.1 ms, and doubles the largest error, at the edges of coloured objects.

    Args:
        image: RGB, uint8.
        quality: 1 to 95. At 90 a 224×224 image of the simulator takes 5 to 7 kB instead of 150 and
            has a PSNR of 45 dB; at 95 it takes 7 to 9 kB and has 48 dB.
    """
    from PIL import Image  # the client imports it only where it is needed

    out = io.BytesIO()
    pixels = np.ascontiguousarray(image)
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling="4:4:4")
    return {MARKER: True, b"frames": [out.getvalue()], b"ndim": 3}


class JpegReader:
    """Decodes the images of one message, up to ``MAX_IMAGES``, ``MAX_BYTES`` and ``MAX_PIXELS``."""

    def __init__(self) -> None:
        self._images = self._bytes = self._pixels = 0

    def decode(self, value: Mapping[Any, Any]) -> NDArray[np.uint8]:
        """Return the RGB image or images of a map with the marker, read-only.

        Raises:
            SessionError: The map or a frame is malformed, too large, or not a baseline RGB JPEG.
        """
        frames, ndim = value.get(b"frames"), value.get(b"ndim")
        if not isinstance(frames, list) or not all(isinstance(f, bytes) for f in frames):
            raise SessionError("malformed JPEG image: its frames are not a list of bytes")
        if ndim not in (3, 4) or not frames or (ndim == 3 and len(frames) != 1):
            raise SessionError(
                f"malformed JPEG image: {len(frames)} frames and ndim {str(ndim)[:20]};"
                " expected ndim 3 with one frame or 4 with some"
            )
        self._images += len(frames)
        self._bytes += sum(map(len, frames))
        if self._images > MAX_IMAGES or self._bytes > MAX_BYTES:
            raise SessionError(
                f"too many JPEG images: a message may have {MAX_IMAGES} of them, of {MAX_BYTES}"
                " bytes together"
            )
        images = [self._frame(frame) for frame in frames]
        if len({image.shape for image in images}) > 1:
            raise SessionError("malformed JPEG image: its frames differ in size")
        stacked = images[0] if ndim == 3 else np.stack(images)
        stacked.flags.writeable = False
        return stacked

    def _frame(self, data: bytes) -> NDArray[np.uint8]:
        from PIL import Image

        self._admit(data)
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                if image.mode != "RGB":
                    raise SessionError(
                        f"unsupported JPEG image: {image.mode}; expected baseline RGB"
                    )
                return np.asarray(image)
        except SessionError:
            raise
        except Exception as error:
            # Pillow raises many types of errors; its messages contain the buffer's address.
            raise SessionError(_MALFORMED) from error

    def _admit(self, data: bytes) -> None:
        """Check the size in the header, before anything is decoded."""
        width, height = _size(data)
        self._pixels += width * height
        if self._pixels > MAX_PIXELS:
            raise SessionError(
                f"JPEG image too large: {width}×{height}; all images of a message together may"
                f" have {MAX_PIXELS} pixels"
            )


def _size(data: bytes) -> tuple[int, int]:
    """Return width and height of a baseline JPEG, with its segments and scans bounded.

    Pillow parses a header byte by byte in Python, and libjpeg processes the whole image for each
    scan, of which a file may have any number.
    """
    at, size = 2, None
    if data[:2] != b"\xff\xd8":
        raise SessionError(_MALFORMED)
    for _ in range(_MAX_SEGMENTS):
        if len(data) < at + 4 or data[at] != 0xFF:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in _START_OF_FRAME and length >= 8 and len(data) >= at + 9:
            if marker not in _BASELINE:
                raise SessionError(
                    f"unsupported JPEG image: {_START_OF_FRAME[marker]}; expected baseline RGB"
                )
            size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + length
        if marker == _START_OF_SCAN:
            if size is None or data.count(bytes([0xFF, _START_OF_SCAN]), at) >= _MAX_SCANS:
                break
            return size
    raise SessionError(_MALFORMED)
