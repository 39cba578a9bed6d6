"""Resizing with padding, as the public Positronic and openpi models were trained with it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def resize_with_pad(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Fit ``(H, W, 3)`` into ``(height, width, 3)``: aspect kept, centred, black around it.

    Pillow's bilinear filter; the fitted size and the offset are truncated to whole pixels. An
    image that has the size already is returned as it is.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    from PIL import Image

    ratio = max(columns / width, rows / height)
    # At least one pixel: a very flat image would otherwise vanish.
    fitted_rows, fitted_columns = max(1, int(rows / ratio)), max(1, int(columns / ratio))
    source: Any = Image.fromarray(np.ascontiguousarray(image))
    fitted = source.resize((fitted_columns, fitted_rows), Image.Resampling.BILINEAR)
    top, left = (height - fitted_rows) // 2, (width - fitted_columns) // 2
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    canvas[top : top + fitted_rows, left : left + fitted_columns] = np.asarray(fitted)
    return canvas
