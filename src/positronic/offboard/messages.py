"""Messages of a session, from the client's side: observations filtered, replies validated."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.text import printable
from positronic.errors import CodecError, SessionError
from positronic.offboard import jpeg
from positronic.offboard.wire import MAX_CONTAINER, unfold
from positronic.policy.base import Action

LONGEST = 1000
# Array kinds that a command may consist of: booleans, numbers and text.
_KINDS = "biufSU"


# Key of the envelope of a command.
_COMMAND = b"__cmd__"
# Not signals of the robot: its task, and the seed of a policy that samples.
_NO_SIGNALS = ("task", "seed")


def actions(reply: Mapping[Any, Any]) -> list[Action]:
    """Return the actions of a reply that holds no error.

    Raises:
        SessionError: They are malformed or not finite.
    """
    if "chunk" in reply:
        chunk = reply["chunk"]
        if not isinstance(chunk, Mapping):
            raise SessionError("malformed reply: its chunk is not a map")
        _require_finite(chunk.get("columns"))
        found: Any = unfold(chunk.get("columns"), _count(chunk.get("count")))
    elif "result" in reply:
        result = reply["result"]
        found = [] if result is None else result if isinstance(result, list) else [result]
        _require_finite(found)
    else:
        raise SessionError(
            "a reply without result or error, only"
            f" {printable(', '.join(sorted(printable(key, 40) for key in reply)))}"
        )
    for action in found:
        _require_action(action)
    return [_unwrapped(action) for action in found]


def error(value: Any) -> str:
    """Return a server's error message, made printable."""
    return printable(value, LONGEST) if isinstance(value, str) else f"a {type(value).__name__}"


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MAX_CONTAINER:
        raise SessionError(f"malformed reply: a chunk of {printable(repr(value), 40)} actions")
    return value


def _require_action(action: Any) -> None:
    if not isinstance(action, dict):
        raise SessionError(f"malformed reply: an action is a {type(action).__name__}, not a map")
    strange = [key for key in action if not isinstance(key, str)]
    if strange:
        raise SessionError("malformed reply: a key of an action is not a string")
    for name in action:
        grip = name == "target_grip" or name.startswith("target_grip.")
        if (grip or name == "timestamp") and not _is_number(action[name]):
            raise SessionError(
                f"malformed reply: the {printable(name, 40)} of an action is a"
                f" {type(action[name]).__name__}"
            )
    command = action.get("robot_command", {})
    if isinstance(command, dict):
        command = command.get(_COMMAND, command)
    if not isinstance(command, dict) or not isinstance(command.get("type", ""), str):
        raise SessionError("malformed reply: the robot_command of an action is not a command")


def _unwrapped(action: Action) -> Action:
    """Take commands out of the envelope in which Positronic's servers since 0.3 send them."""
    if not any(isinstance(value, dict) and _COMMAND in value for value in action.values()):
        return action
    return {
        key: value[_COMMAND] if isinstance(value, dict) and _COMMAND in value else value
        for key, value in action.items()
    }


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.size == 1 and value.dtype.kind in "biuf"
    return isinstance(value, int | float | np.number)


def _require_finite(value: Any) -> None:
    """Raise unless all numbers are finite; refuse deeper nesting than any action has."""
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, dict | list):
            if depth > 16:
                raise SessionError("malformed reply: its actions are nested too deeply")
            children = part.values() if isinstance(part, dict) else part
            waiting.extend((child, depth + 1) for child in children)
        elif isinstance(part, np.ndarray | np.generic):
            if part.dtype.kind not in _KINDS:
                raise SessionError(f"malformed reply: an array of dtype {part.dtype}")
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                raise SessionError("the server sent an action that is not finite")
        elif isinstance(part, float) and not math.isfinite(part):
            raise SessionError("the server sent an action that is not finite")


class RequestFilter:
    """Makes requests for one server; without a contract it sends all signals."""

    def __init__(self, contract: Any = None, jpeg_quality: int | None = None) -> None:
        """Configure the filter.

        Args:
            contract: The ``contract`` in the ready message; public servers send none.
            jpeg_quality: JPEG quality of images; None sends raw pixels.
        """
        document = contract if isinstance(contract, Mapping) else {}
        self._wanted = frozenset(document.get("inputs") or ())
        self._sizes = image_sizes(document)
        self._jpeg_quality = jpeg_quality

    def __call__(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Drop signals that the codec does not read, shrink large images, and compress images."""
        request = {key: value for key, value in obs.items() if self._takes(key)}
        for key, (height, width) in self._sizes.items():
            image = request.get(key)
            if isinstance(image, np.ndarray) and image.size > height * width * 3:
                request[key] = _shrink(image, height, width)
        if self._jpeg_quality is not None:
            for key, value in request.items():
                if is_image(value):
                    request[key] = jpeg.encode(value, self._jpeg_quality)
        return request

    def _takes(self, key: str) -> bool:
        if self._wanted:
            return key in self._wanted or key in _NO_SIGNALS
        # Public servers would take the seed for a signal.
        return key != "seed"


def image_sizes(contract: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return height and width by raw image, for images that the contract's codec resizes first.

    Only those can be resized before sending with a bit-identical result, since resizing an image to
    its own size changes nothing.
    """
    from positronic.codec import Image, Parallel, from_spec

    try:
        codec = from_spec((contract.get("codec") or {}).get("spec") or {})
    except CodecError:
        return {}  # codec of another version or package: the server resizes
    parts = codec.parts if isinstance(codec, Parallel) else (codec,)
    images = [part for part in parts if isinstance(part, Image)]
    sources = [image.source for image in images]
    return {image.source: image.size for image in images if sources.count(image.source) == 1}


def is_image(value: Any) -> bool:
    """Return whether ``value`` is a camera image: ``(height, width, 3)`` of uint8."""
    return (
        isinstance(value, np.ndarray)
        and value.ndim == 3
        and value.shape[2] == 3
        and value.dtype == np.uint8
        and value.size > 0
    )


def _shrink(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize as the codec does; anything but an image is left for the server to refuse."""
    if not is_image(image):
        return image
    from positronic.codec.images import resize_with_pad

    return resize_with_pad(image, height, width)
