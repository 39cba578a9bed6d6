"""Window of the live view: a program that reads frames on stdin and shows the latest.

It prints ``ready``, or the reason why no window opened, and ends at the end of stdin or when the
window is closed. GLFW and OpenGL come with MuJoCo; nothing else is needed.
"""

import math
import signal
import sys
import threading
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from positronic.inference.live.view import READY, unpack_frame

TITLE = "Positronic"
GAP = 4
BACKGROUND = (18, 20, 24)
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
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for i, (name, image) in enumerate(images.items()):
        x, y = (i % columns) * (width + GAP), (i // columns) * (height + GAP)
        canvas.paste(Image.fromarray(image), (x, y))
        box = draw.textbbox((x + 8, y + 6), name)
        draw.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), fill=BACKGROUND)
        draw.text((x + 8, y + 6), name, fill=(235, 238, 242))
    return np.asarray(canvas)


def fitting_size(width: int, height: int) -> tuple[int, int]:
    """Return the window size for an image: twice its size, limited to ``LARGEST``."""
    scale = min(2.0, LARGEST[0] / width, LARGEST[1] / height)
    return round(width * scale), round(height * scale)


class Inbox:
    """Reads frames from a stream in a thread and keeps only the newest."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._latest: bytes | None = None
        self._lock = threading.Lock()
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> bytes | None:
        """Return the newest frame not taken yet, or None."""
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


class Window:
    """A GLFW window that shows one image, as large as fits, with its aspect ratio."""

    def __init__(self) -> None:
        import glfw
        from OpenGL import GL

        self._glfw, self._gl = glfw, GL
        glfw.ERROR_REPORTING = "exception"
        if not glfw.init():
            raise RuntimeError("there is no display")
        self._handle = glfw.create_window(LARGEST[0] // 2, LARGEST[1] // 2, TITLE, None, None)
        if not self._handle:
            raise RuntimeError("OpenGL is not available on this display")
        glfw.make_context_current(self._handle)
        glfw.swap_interval(0)
        GL.glBindTexture(GL.GL_TEXTURE_2D, GL.glGenTextures(1))
        for use in (GL.GL_TEXTURE_MIN_FILTER, GL.GL_TEXTURE_MAG_FILTER):
            GL.glTexParameteri(GL.GL_TEXTURE_2D, use, GL.GL_LINEAR)
        for edge in (GL.GL_TEXTURE_WRAP_S, GL.GL_TEXTURE_WRAP_T):
            GL.glTexParameteri(GL.GL_TEXTURE_2D, edge, GL.GL_CLAMP_TO_EDGE)
        GL.glEnable(GL.GL_TEXTURE_2D)
        GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)
        self._aspect = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the user has closed it."""
        return bool(self._glfw.window_should_close(self._handle))

    def show(self, title: str, image: NDArray[np.uint8]) -> None:
        """Upload a uint8 HWC image; the first one sets the window's size."""
        gl = self._gl
        height, width = image.shape[:2]
        if not self._aspect:
            self._glfw.set_window_size(self._handle, *fitting_size(width, height))
        self._aspect = width / height
        self._glfw.set_window_title(self._handle, f"{TITLE} · {title}")
        gl.glTexImage2D(
            *(gl.GL_TEXTURE_2D, 0, gl.GL_RGB, width, height, 0),
            *(gl.GL_RGB, gl.GL_UNSIGNED_BYTE, np.ascontiguousarray(image)),
        )

    def draw(self) -> None:
        """Draw the image in the centre of the window, and process window events."""
        glfw, gl = self._glfw, self._gl
        gl.glClearColor(*(channel / 255 for channel in BACKGROUND), 1.0)
        gl.glClear(gl.GL_COLOR_BUFFER_BIT)
        if self._aspect:
            width, height = glfw.get_framebuffer_size(self._handle)
            w = max(1, min(width, round(height * self._aspect)))
            h = max(1, min(height, round(width / self._aspect)))
            gl.glViewport((width - w) // 2, (height - h) // 2, w, h)
            gl.glBegin(gl.GL_QUADS)
            for u, v in ((0, 1), (1, 1), (1, 0), (0, 0)):
                gl.glTexCoord2f(u, v)
                gl.glVertex2f(2 * u - 1, 1 - 2 * v)
            gl.glEnd()
        glfw.swap_buffers(self._handle)
        glfw.wait_events_timeout(POLL_S)

    def close(self) -> None:
        """Close the window and terminate GLFW."""
        self._glfw.terminate()


def main() -> int:
    """Show frames until stdin ends or the window is closed; return 1 without a display."""
    # Ctrl-C is meant for the parent process; this one ends with its stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        window = Window()
    except Exception as error:  # GLFW and PyOpenGL raise many classes of errors
        print(" ".join(f"the window did not open: {error}".split()), flush=True)
        return 1
    print(READY, flush=True)
    inbox = Inbox(sys.stdin.buffer)
    while not window.is_closed and not inbox.ended:
        frame = inbox.take()
        if frame is not None:
            title, images = unpack_frame(frame)
            if images:
                window.show(title, mosaic(images))
        window.draw()
    window.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
