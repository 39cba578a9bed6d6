"""Short H.264 videos for a page: cameras side by side, at the speed at which it happened."""

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

GAP = 4  # pixels between two cameras


def side_by_side(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put uint8 HWC images of any sizes in one row, aligned at the top, on black.

    Width and height of the result are even, as 4:2:0 chroma subsampling wants them.
    """
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + GAP * (len(images) - 1)
    canvas = np.zeros((height + height % 2, width + width % 2, 3), dtype=np.uint8)
    left = 0
    for image in images:
        canvas[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + GAP
    return canvas


def encode_mp4(
    frames: Iterable[NDArray[np.uint8]], fps: float, *, crf: int = 25
) -> tuple[bytes, tuple[int, int]]:
    """Encode uint8 HWC frames of one even size as an MP4 that browsers play (H.264, yuv420p).

    Returns the file and its (width, height).

    Raises:
        ValueError: there are no frames.
    """
    import av

    buffer = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(buffer, "w", format="mp4") as container:
        stream = None
        for frame in frames:
            if stream is None:
                # A short GOP makes dragging the playhead smooth; one thread leaves the rest alone.
                options = {"crf": str(crf), "preset": "veryfast", "g": "15"}
                stream = container.add_stream("libx264", rate=rate, options=options)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is None:
            raise ValueError("no frames to encode")
        container.mux(stream.encode(None))
        size = (stream.width, stream.height)
    return buffer.getvalue(), size
