"""The window of the live view: a program that reads frames on stdin and shows the latest.

It prints ``ready``, or why there can be no window, and ends when stdin does or the window is
closed. GLFW and OpenGL come with MuJoCo; nothing else is needed.
"""

import math
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from positronic.inference.live_view import READY, unpack_frame

TITLE = "Positronic"
GAP = 4
LARGEST = (1280, 720)
POLL_S = 0.02


def mosaic(images: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Arrange uint8 HWC images in a near-square grid, each with its name in the corner."""
    count = len(images)
    columns = min(count, 2) if count <= 4 else math.ceil(math.sqrt(count))
    if count == 3:
        columns = 3
    rows = math.ceil(count / columns)
    height = max(image.shape[0] for image in images.values())
    width = max(image.shape[1] for image in images.values())
    size = ((width + GAP) * columns - GAP, (height + GAP) * rows - GAP)
    canvas = Image.new("RGB", size, (18, 20, 24))
    draw = ImageDraw.Draw(canvas)
    for i, (name, image) in enumerate(images.items()):
        x, y = (i % columns) * (width + GAP), (i // columns) * (height + GAP)
        canvas.paste(Image.fromarray(image), (x, y))
        box = draw.textbbox((x + 8, y + 6), name)
        draw.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), fill=(18, 20, 24))
        draw.text((x + 8, y + 6), name, fill=(235, 238, 242))
    return np.asarray(canvas)


def fitting_size(width: int, height: int) -> tuple[int, int]:
    """Return the window size for a picture: twice its size, or as much of that as is sensible."""
    scale = min(2.0, LARGEST[0] / width, LARGEST[1] / height)
    return round(width * scale), round(height * scale)


class Inbox:
    """Reads frames from a stream in a thread and keeps the newest only."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._latest: bytes | None = None
        self._lock = threading.Lock()
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> bytes | None:
        """Return the newest frame that was not taken yet, if any."""
        with self._lock:
            frame, self._latest = self._latest, None
            return frame

    def _read(self) -> None:
        while True:
            head = self._stream.read(4)
            data = self._stream.read(int.from_bytes(head, "little")) if len(head) == 4 else b""
            if not data:
                self.ended = True
                return
            with self._lock:
                self._latest = data


def main() -> int:
    """Show frames until there are no more or the window is closed; 1 without a display."""
    # Ctrl-C is meant for the rollouts; this process goes when its stdin does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import glfw

        window = _open(glfw)
    except Exception as error:  # GLFW and PyOpenGL raise many kinds; each means: no window
        print(" ".join(f"the window did not open: {error}".split()), flush=True)
        return 1
    print(READY, flush=True)
    inbox = Inbox(sys.stdin.buffer)
    sized = False
    while not glfw.window_should_close(window) and not inbox.ended:
        frame = inbox.take()
        if frame is not None:
            title, images = unpack_frame(frame)
            glfw.set_window_title(window, f"{TITLE} · {title}")
            if images:
                picture = mosaic(images)
                _upload(picture)
                if not sized:
                    glfw.set_window_size(window, *fitting_size(picture.shape[1], picture.shape[0]))
                    sized = True
        _draw(glfw, window)
        glfw.wait_events_timeout(POLL_S)
    glfw.terminate()
    return 0


def _open(glfw: Any) -> Any:
    glfw.ERROR_REPORTING = "exception"
    if not glfw.init():
        raise RuntimeError("there is no display")
    window = glfw.create_window(LARGEST[0] // 2, LARGEST[1] // 2, TITLE, None, None)
    if not window:
        raise RuntimeError("OpenGL is not available on this display")
    glfw.make_context_current(window)
    glfw.swap_interval(0)
    from OpenGL import GL

    GL.glBindTexture(GL.GL_TEXTURE_2D, GL.glGenTextures(1))
    for side in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
        GL.glTexParameteri(GL.GL_TEXTURE_2D, side, GL.GL_LINEAR)
    for edge in (GL.GL_TEXTURE_WRAP_S, GL.GL_TEXTURE_WRAP_T):
        GL.glTexParameteri(GL.GL_TEXTURE_2D, edge, GL.GL_CLAMP_TO_EDGE)
    GL.glEnable(GL.GL_TEXTURE_2D)
    GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)
    _upload(np.full((10, 24, 3), 18, np.uint8))
    return window


_aspect = 1.0


def _upload(image: NDArray[np.uint8]) -> None:
    from OpenGL import GL

    global _aspect
    height, width = image.shape[:2]
    _aspect = width / height
    GL.glTexImage2D(
        *(GL.GL_TEXTURE_2D, 0, GL.GL_RGB, width, height, 0),
        *(GL.GL_RGB, GL.GL_UNSIGNED_BYTE, np.ascontiguousarray(image)),
    )


def _draw(glfw: Any, window: Any) -> None:
    from OpenGL import GL

    width, height = glfw.get_framebuffer_size(window)
    shown_width = min(width, round(height * _aspect))
    shown_height = min(height, round(width / _aspect))
    GL.glClearColor(0.07, 0.078, 0.094, 1.0)
    GL.glClear(GL.GL_COLOR_BUFFER_BIT)
    left, bottom = (width - shown_width) // 2, (height - shown_height) // 2
    GL.glViewport(left, bottom, max(1, shown_width), max(1, shown_height))
    GL.glBegin(GL.GL_QUADS)
    for u, v in ((0, 1), (1, 1), (1, 0), (0, 0)):
        GL.glTexCoord2f(u, v)
        GL.glVertex2f(2 * u - 1, 1 - 2 * v)
    GL.glEnd()
    glfw.swap_buffers(window)


if __name__ == "__main__":
    sys.exit(main())
