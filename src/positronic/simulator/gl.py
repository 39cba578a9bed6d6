"""OpenGL backend of MuJoCo (EGL or OSMesa), selected before ``mujoco`` is imported.

MuJoCo reads ``MUJOCO_GL`` once, at import. Its own default needs a display; without one it fails
deep inside OpenGL with a message that names neither the cause nor the package to install.
"""

import ctypes
import os
import sys
from pathlib import Path

from foundation.errors import MissingDependency

APT_COMMAND = "apt-get install -y --no-install-recommends libegl1 libgl1"

# Libraries of each backend. PyOpenGL loads functions from libOpenGL or, failing that, libGL.
_NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "egl": (("libEGL.so.1",), ("libOpenGL.so.0", "libGL.so.1")),
    "osmesa": (("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6"),),
}


def select_backend(required: bool = True) -> str:
    """Set ``MUJOCO_GL`` (EGL, else OSMesa) unless the user has set it; return its value.

    Disables Mesa's shader cache if its directory is not writable; Mesa would warn each time.

    Args:
        required: Whether anything will be rendered. If not, a machine without the libraries gets
            ``disable`` instead of an error: physics alone needs no OpenGL.

    Raises:
        MissingDependency: neither library, or not the one that is set, is installed; the message
            gives the command to install it.
    """
    _disable_unwritable_shader_cache()
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    disabled = chosen in ("disable", "disabled", "off", "0", "false")
    if chosen in _NEEDS and not is_available(chosen):
        # Importing MuJoCo would fail, without a word of why.
        if required:
            raise missing(chosen)
    elif chosen and not (disabled and required):
        return chosen
    if not sys.platform.startswith("linux"):
        return chosen
    found = next((name for name in _NEEDS if is_available(name)), None)
    if found is not None and not disabled:
        os.environ["MUJOCO_GL"] = found
        return found
    if required:
        if disabled and found is not None:
            raise MissingDependency(
                f"cannot render: MUJOCO_GL={chosen} disables rendering; "
                f"unset it or set MUJOCO_GL={found}"
            )
        raise missing()
    os.environ["MUJOCO_GL"] = "disable"
    return "disable"


def _disable_unwritable_shader_cache() -> None:
    """Disable Mesa's shader cache if its directory can neither be created nor written."""
    if any(name in os.environ for name in ("MESA_SHADER_CACHE_DISABLE", "MESA_SHADER_CACHE_DIR")):
        return
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        path = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        path = None
    while path is not None and not path.exists() and path != path.parent:
        path = path.parent
    if path is None or not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        os.environ["MESA_SHADER_CACHE_DISABLE"] = "true"


def is_available(backend: str) -> bool:
    """Return whether the shared libraries of ``egl`` or ``osmesa`` load on this machine."""
    return all(any(_loads(name) for name in names) for names in _NEEDS[backend])


def missing(backend: str = "") -> MissingDependency:
    """Error that says how to install the rendering libraries."""
    tried = f"MUJOCO_GL={backend} does not work" if backend else "no EGL or OSMesa library works"
    return MissingDependency(f"cannot render: {tried} here; install one with: {APT_COMMAND}")


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
