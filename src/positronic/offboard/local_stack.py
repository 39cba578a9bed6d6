"""Processing that a public Positronic server leaves to its client and declares when it is ready.

Imported on first use, and only for servers that send a ``local_stack`` and no contract. Since 0.3
such servers count a closed grip as 1. Here an open one is 1, so both ways are turned, unless the
stack itself holds a ``flip_grip``.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.documents import Document, Reader
from foundation.text import printable
from positronic.errors import SessionError
from positronic.offboard import jpeg
from positronic.offboard.messages import is_image
from positronic.policy.base import Action

type _Encode = Callable[[dict[str, Any]], dict[str, Any]]
type _Decode = Callable[[Action], Action]

_MEND = "it declares processing that this client does not have; use that server's own client"
_reader = Reader(error=SessionError, mend=_MEND, depth=16, values=10_000)

_Pixels = Annotated[int, Field(ge=1, le=1 << 14)]


class _Component(Document):
    name: Annotated[str, Field(max_length=100)]
    args: dict[str, Any] = Field(default_factory=dict)


class _Schedule(Document):
    fps: Annotated[float, Field(strict=False, gt=0, le=1e6)] | None = None
    horizon_sec: Annotated[float, Field(strict=False, gt=0, le=1e6)] | None = None


class _Resize(Document):
    width: _Pixels = 640
    height: _Pixels = 640
    mode: Literal["bound", "pad", "stretch"] = "bound"
    resample: Literal["bilinear"] = "bilinear"
    paths: None = None


class _Compress(Document):
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    paths: None = None


class _Binarize(Document):
    threshold: Annotated[float, Field(strict=False)] = 0.5
    key: Annotated[str, Field(pattern=r"^target_grip(\.\w+)?$")] = "target_grip"


class _Flip(Document):
    arms: list[Annotated[str, Field(max_length=100)]] | None = None


class LocalStack:
    """Client-side processing of one server: observations on their way out, actions on theirs in.

    Attributes:
        fps: actions per second of a server whose actions have no timestamps; None if not declared.
    """

    def __init__(self, declared: Any, url: str) -> None:
        """Build the processing.

        Args:
            declared: the ``local_stack`` of a ready message: a component, or ``{"seq": [...]}``.
            url: address of the server, for messages.

        Raises:
            SessionError: a component is unknown here or malformed; the message names it.
        """
        self._source = f"the local_stack of {url}"
        self.fps: float | None = None
        self._horizon: float | None = None
        # The robot's end of the stack is its beginning.
        self._encoders: list[_Encode] = [partial(_flipped, key="grip", arms=None)]
        self._decoders: list[_Decode] = [partial(_flipped, key="target_grip", arms=None)]
        for component in self._components(declared):
            self._add(component)

    def encode(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the observation as the server wants it; the given one is left as it is."""
        found = dict(obs)
        for encode in self._encoders:
            found = encode(found)
        return found

    def decode(self, actions: list[Action]) -> list[Action]:
        """Return the actions as a robot plays them, timed if the rate is declared."""
        for decode in reversed(self._decoders):
            actions = [decode(action) for action in actions]
        if self.fps is None or any("timestamp" in action for action in actions):
            return actions
        timed = [{**action, "timestamp": i / self.fps} for i, action in enumerate(actions)]
        if self._horizon is None or self._horizon >= len(timed) / self.fps:
            return timed
        horizon = self._horizon
        return [*(a for a in timed if a["timestamp"] < horizon), {"timestamp": horizon}]

    def _components(self, node: Any, depth: int = 0) -> list[_Component]:
        if isinstance(node, Mapping) and isinstance(node.get("seq"), list) and depth < 8:
            return [part for child in node["seq"] for part in self._components(child, depth + 1)]
        return [_reader.validate(node, _Component, self._source)]

    def _add(self, component: _Component) -> None:
        def args[T](kind: type[T]) -> T:
            return _reader.validate(component.args, kind, f"{component.name} in {self._source}")

        match component.name:
            case "chunked_schedule" | "action_timestamp" | "action_horizon":
                schedule = args(_Schedule)
                self.fps = schedule.fps or self.fps
                self._horizon = schedule.horizon_sec or self._horizon
            case "restrict_image_size" | "transform_images":
                resize = args(_Resize)
                self._encoders.append(partial(_on_images, change=partial(_resized, to=resize)))
            case "encode_images":
                quality = args(_Compress).quality
                change = partial(jpeg.encode, quality=quality)
                self._encoders.append(partial(_on_images, change=change))
            case "binarize_grip_inference":
                binarize = args(_Binarize)
                self._decoders.append(partial(_binarized, to=binarize))
            case "flip_grip":
                arms = args(_Flip).arms
                self._encoders.append(partial(_flipped, key="grip", arms=arms))
                self._decoders.append(partial(_flipped, key="target_grip", arms=arms))
            # The first withholds commands from an arm that reports a fault; robots here report
            # none. The others say something of training, or only name values.
            case "stop_on_fault" | "binarize_grip_training" | "metadata":
                pass
            case name:
                raise SessionError(f"{self._source} has {printable(name, 80)!r}: {_MEND}")


def _flipped(values: dict[str, Any], key: str, arms: list[str] | None) -> dict[str, Any]:
    """Turn 0 to 1 in ``key`` and ``key.ARM``; all arms if None are named."""
    if arms is None:
        names = [name for name in values if name == key or name.startswith(f"{key}.")]
    else:
        names = [f"{key}.{arm}" for arm in arms if f"{key}.{arm}" in values]
    return {**values, **{name: 1.0 - values[name] for name in names}}


def _binarized(action: Action, to: _Binarize) -> Action:
    if to.key not in action:
        return action
    return {**action, to.key: 1.0 if action[to.key] > to.threshold else 0.0}


def _on_images(obs: dict[str, Any], change: Callable[[NDArray[np.uint8]], Any]) -> dict[str, Any]:
    return {key: change(value) if is_image(value) else value for key, value in obs.items()}


def _resized(image: NDArray[np.uint8], to: _Resize) -> NDArray[np.uint8]:
    if to.mode == "pad":
        from positronic.codec.images import resize_with_pad

        return resize_with_pad(image, to.height, to.width)
    rows, columns = image.shape[:2]
    height, width = to.height, to.width
    if to.mode == "bound":
        scale = min(1.0, width / columns, height / rows)
        height, width = max(1, int(rows * scale)), max(1, int(columns * scale))
    if (height, width) == (rows, columns):
        return image
    from PIL import Image

    source: Any = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(source.resize((width, height), Image.Resampling.BILINEAR))
