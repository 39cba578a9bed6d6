"""Camera images: validated, and resized with padding as public Positronic and openpi models are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.errors import CodecError


def require_image(name: str, frame: Any, expected: str = "uint8 (H, W, 3)") -> NDArray[np.uint8]:
    """Return ``frame`` if it is an image, uint8 ``(H, W, 3)``; ``name`` is its signal.

    Raises:
        CodecError: it is not; says in which of the usual other forms it is, and what to do.
    """
    # Text and lists are not images; converting long ones would take long.
    plain = isinstance(frame, str | bytes | bytearray | list | tuple)
    image = np.empty(0, object) if plain else np.asarray(frame)
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0:
        return image
    raise CodecError(
        f"image '{name}' is {printable(image.dtype, 60)} {image.shape}, expected {expected}"
        f"{_remedy(image)}"
    )


def _remedy(image: NDArray[Any]) -> str:
    """Return what to do with an image in another usual form; nothing for anything else."""
    wrong, steps = [], []
    if image.ndim == 4 and image.shape[0] == 1:
        wrong, steps = ["a batch of one"], ["take its element 0"]
        image = image[0]
    if image.ndim != 3 or not image.size:
        return ""
    if image.shape[0] == 3 and image.shape[2] != 3:
        wrong.append("channels first")
        steps.append("transpose it to (H, W, 3)")
    elif image.shape[2] != 3:
        return ""
    if image.dtype.kind == "f":
        unit = float(image.min()) >= 0 and float(image.max()) <= 1
        wrong.append("floats from 0 to 1" if unit else "floats")
        steps.append("send round(255 * image) as uint8" if unit else "send uint8 from 0 to 255")
    return f": it is {' and '.join(wrong)}; {', '.join(steps)}" if wrong else ""


def resize_with_pad(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize ``(H, W, 3)`` to ``(height, width, 3)``, keeping the aspect ratio, padded with black.

    Pillow's bilinear filter; the image is centred, its size and offset truncated to whole pixels.
    An image that already has the size is returned unchanged.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    from PIL import Image

    ratio = max(columns / width, rows / height)
    # At least one pixel, for images with an extreme aspect ratio.
    fitted_rows, fitted_columns = max(1, int(rows / ratio)), max(1, int(columns / ratio))
    source: Any = Image.fromarray(np.ascontiguousarray(image))
    fitted = source.resize((fitted_columns, fitted_rows), Image.Resampling.BILINEAR)
    top, left = (height - fitted_rows) // 2, (width - fitted_columns) // 2
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    canvas[top : top + fitted_rows, left : left + fitted_columns] = np.asarray(fitted)
    return canvas
