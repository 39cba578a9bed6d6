"""LiveView: sends camera images to a window in another process, without blocking.

In its own process the window cannot stall or crash the rollout, and it can use OpenGL on a display
while MuJoCo renders without one. Frames that arrive faster than it draws are dropped.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 3.0
READY = "ready"


class LiveView:
    """A window with all cameras; closing it does not stop the rollouts."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._frame: dict[str, Any] | None = None
        self._changed = threading.Condition()
        self._stopped = False
        self._sender = threading.Thread(target=self._send, name="live view", daemon=True)
        self._sender.start()

    @property
    def is_open(self) -> bool:
        """Whether the window is still open."""
        return not self._stopped and self._process.poll() is None

    def show(self, obs: Mapping[str, Any], title: str) -> None:
        """Show the images of an observation (uint8 HWC, ``image.*``); returns at once."""
        images = {
            name.removeprefix("image."): np.array(value)
            for name, value in obs.items()
            if name.startswith("image.")
        }
        with self._changed:
            self._frame = {"title": title, "images": images}
            self._changed.notify()

    def close(self) -> None:
        """Close the window."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._sender.join(STOP_TIMEOUT_S)
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _send(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frame is not None or self._stopped)
                if self._stopped:
                    return
                frame, self._frame = self._frame, None
            assert frame is not None
            try:
                stdin.write(pack_frame(frame["title"], frame["images"]))
                stdin.flush()
            except OSError:  # the window was closed
                self._stopped = True
                return


def open_live_view() -> tuple[LiveView | None, str]:
    """Open the window; without a display, return None and the reason."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return None, "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    # MuJoCo's EGL backend sets this in our process; a window needs the platform's default.
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"}
    process = subprocess.Popen(
        [sys.executable, "-m", "positronic.inference.live.window"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    answer = _first_line(process)
    if answer == READY:
        return LiveView(process), ""
    process.kill()
    process.communicate()
    return None, answer or "the window did not open"


def _first_line(process: "subprocess.Popen[bytes]") -> str:
    lines: list[bytes] = []
    stdout = process.stdout
    assert stdout is not None
    reader = threading.Thread(target=lambda: lines.append(stdout.readline()), daemon=True)
    reader.start()
    reader.join(START_TIMEOUT_S)
    return lines[0].decode(errors="replace").strip() if lines else ""


def pack_frame(title: str, images: Mapping[str, NDArray[np.uint8]]) -> bytes:
    """Serialise one frame: its length in four little-endian bytes, then a msgpack map."""
    body = {name: (image.shape, image.tobytes()) for name, image in images.items()}
    data: bytes = msgpack.packb({"title": title, "images": body})
    return len(data).to_bytes(4, "little") + data


def unpack_frame(data: bytes) -> tuple[str, dict[str, NDArray[np.uint8]]]:
    """Deserialise the msgpack map of :func:`pack_frame`, without the length."""
    frame = msgpack.unpackb(data)
    images = {
        name: np.frombuffer(body, np.uint8).reshape(shape)
        for name, (shape, body) in frame["images"].items()
    }
    return frame["title"], images
