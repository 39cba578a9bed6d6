"""Flags of the codecs: which signals a policy sees, by which names, and in which sizes.

A shell removes quotes, and names have dots, so ``{front: image.front}`` and
``[robot_state.q,grip]`` arrive as text, which is parsed here. Braces and brackets may be left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from positronic.cli.values import names
from positronic.codec import Image, Vector
from positronic.codec.action import GRIPS
from positronic.codec.fields import shown
from positronic.codec.vectors import QUAT_REFERENCE
from positronic.errors import CodecError

IMAGE_SIZE = (224, 224)
CAMERAS = {"left": "image.wrist", "side": "image.exterior"}
"""Image signals by the names of their features, as the public Positronic has them."""


def names_of(value: Any, flag: str) -> tuple[str, ...]:
    """Return the names of a list, given as text or as a list.

    Raises:
        CodecError: there is none, or one twice.
    """
    found = names(value)
    if not found or len(set(found)) != len(found):
        raise CodecError(f"{flag} is {shown(value)}; give names, each once, such as [a,b]")
    return found


def state_of(
    signals: Any,
    quat_reference: Any = QUAT_REFERENCE,
    rotation: str = "wxyz",
    n_joints: int | None = None,
) -> Vector:
    """Return the codec of the numeric signals that the policy sees, ``observation.state``.

    A pose has 7 numbers, a grip one, a signal whose name ends in ``q`` as many as ``n_joints``, and
    ``NAME:6`` six; the sizes of others are open until they are seen in recordings.

    Raises:
        CodecError: a name or a size is invalid.
    """
    pairs = []
    for given in names_of(signals, "state"):
        name, _, size = given.partition(":")
        if size and not (size.strip().isascii() and size.strip().isdigit() and len(size) < 8):
            raise CodecError(f"state has {shown(given)}; give NAME, or NAME:6 for six numbers")
        pairs.append((name.strip(), int(size) if size else _usual_size(name, n_joints)))
    return Vector("observation.state", tuple(pairs), quat_reference, rotation)


def _usual_size(name: str, n_joints: int | None) -> int | None:
    last = name.rpartition(".")[2]
    if last.endswith("pose"):
        return 7
    if last in GRIPS:
        return 1
    return n_joints if last == "q" else None


def cameras_of(cameras: Any, image_size: Any) -> tuple[Image, ...]:
    """Return the codecs of the images, one per camera.

    Args:
        cameras: signals by the names of their features, ``{front: image.front}``; or a list of
            signals, which are called by the last parts of their names; or None.
        image_size: one number, height and width, or either by the camera's name.

    Raises:
        CodecError: they are not of this form, or two cameras have one name.
    """
    named = _named(cameras)
    sizes = image_size if isinstance(image_size, Mapping) else dict.fromkeys(named, image_size)
    if set(sizes) != set(named):
        raise CodecError(
            f"image_size is for {', '.join(map(str, sizes))}; give one for each of the cameras"
            f" {', '.join(named) or '(there is none)'}"
        )
    return tuple(
        Image(f"observation.images.{name}", signal, sizes[name]) for name, signal in named.items()
    )


def _named(cameras: Any) -> dict[str, str]:
    if isinstance(cameras, Mapping):
        return {str(name): signal for name, signal in cameras.items()}
    text = cameras.strip(" {}") if isinstance(cameras, str) else cameras
    pairs = [part.partition(":") for part in names(text)]
    found = {
        name.strip() if colon else name.rpartition(".")[2]: signal.strip() if colon else name
        for name, colon, signal in pairs
    }
    if len(found) != len(pairs):
        raise CodecError(
            f"cameras is {shown(cameras)}; give each its own name, as in {{front: image.front}}"
        )
    return found


def camera_names(signals: Sequence[str]) -> dict[str, str]:
    """Return image signals by names for their features: the last part, or all if that is twice."""
    last = [signal.rpartition(".")[2] for signal in signals]
    return {
        end if last.count(end) == 1 else signal.replace(".", "_"): signal
        for end, signal in zip(last, signals, strict=True)
    }
