"""Offscreen rendering of a simulation's cameras, without a display."""

import atexit
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.simulator import gl

_open: "weakref.WeakSet[Cameras]" = weakref.WeakSet()


class Cameras:
    """Renders named cameras at one size; holds an OpenGL context until ``close``."""

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        """Create a renderer of images of ``size`` (height, width).

        Raises:
            MissingDependency: OpenGL does not work here; the message says what to install.
        """
        backend = gl.select_backend()
        import mujoco

        height, width = size
        screen = model.vis.global_
        screen.offheight = max(int(screen.offheight), height)
        screen.offwidth = max(int(screen.offwidth), width)
        self._renderer: Any = None
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except (ImportError, AttributeError, RuntimeError) as error:
            # The library has no driver, or MUJOCO_GL names a missing one.
            raise gl.missing(backend) from error
        if not _open:
            # Registered after MuJoCo's handler, so run before it: a context freed after the display
            # is closed prints an error.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _open.add(self)
        self._shadow = int(mujoco.mjtRndFlag.mjRND_SHADOW)
        self._reflection = int(mujoco.mjtRndFlag.mjRND_REFLECTION)

    def render(self, data: Any, camera: str) -> NDArray[np.uint8]:
        """Render ``camera`` as RGB, uint8 ``(height, width, 3)``."""
        self._renderer.update_scene(data, camera)
        flags = self._renderer.scene.flags
        flags[self._shadow] = 0  # with a software rasteriser, shadows take ten times as long
        flags[self._reflection] = 0
        return np.array(self._renderer.render(), dtype=np.uint8)

    def close(self) -> None:
        """Free the context; may be called repeatedly."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
            _open.discard(self)


def _close_all() -> None:
    for cameras in list(_open):
        cameras.close()
