"""Resizing with padding, as used in training of public Positronic and openpi models."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


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
