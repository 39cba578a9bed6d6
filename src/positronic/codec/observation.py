"""What the policy sees: vectors, images, and the poses of objects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec, Features, Row
from positronic.codec.images import resize_with_pad
from positronic.codec.vectors import read, require_rotations
from positronic.errors import CodecError


@dataclass(frozen=True)
class Vector(Codec):
    """Numeric signals joined into one float32 vector.

    ``signals`` are pairs of name and number of elements, in the order they are joined.
    """

    kind: ClassVar[str] = "vector"
    key: str
    signals: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "signals", tuple((str(n), int(d)) for n, d in self.signals))

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.signals)

    @property
    @override
    def features(self) -> Features:
        size = sum(size for _, size in self.signals)
        return {self.key: {"dtype": "float32", "shape": (size,), "names": list(self.inputs)}}

    @property
    @override
    def origins(self) -> dict[str, tuple[str, ...]]:
        return {self.key: tuple(name for name, size in self.signals for _ in range(size))}

    @override
    def encode(self, obs: Row) -> dict[str, NDArray[Any]]:
        parts = [read(obs, name, size, rows=False) for name, size in self.signals]
        for (name, size), part in zip(self.signals, parts, strict=True):
            if size == 7 and name.endswith("pose"):
                require_rotations(name, part)
        return {self.key: _joined(parts)}

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        parts = [read(columns, name, size, rows=True) for name, size in self.signals]
        return {self.key: _joined(parts)}


def _joined(parts: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    return np.concatenate(parts, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Image(Codec):
    """One camera, resized with its aspect kept and padded with black.

    ``size`` is ``(height, width)``.
    """

    kind: ClassVar[str] = "image"
    key: str
    source: str
    size: tuple[int, int]

    def __post_init__(self) -> None:
        size = tuple(self.size) if isinstance(self.size, Iterable) else (self.size, self.size)
        whole = len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
        if not whole:
            raise CodecError(f"image_size is {self.size!r}; give [height, width] in pixels")
        object.__setattr__(self, "size", size)

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    @override
    def features(self) -> Features:
        names = ["height", "width", "channel"]
        return {self.key: {"dtype": "video", "shape": (*self.size, 3), "names": names}}

    @property
    @override
    def meta(self) -> dict[str, Any]:
        height, width = self.size
        return {"image_sizes": {self.source: [width, height]}}

    @override
    def encode(self, obs: Row) -> dict[str, NDArray[Any]]:
        if self.source not in obs:
            present = ", ".join(sorted(obs)) or "nothing"
            raise CodecError(f"image '{self.source}' is missing; present: {present}")
        return {self.key: self._resize(obs[self.source])}

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        if self.source not in columns:
            present = ", ".join(sorted(columns)) or "nothing"
            raise CodecError(f"image '{self.source}' is missing; present: {present}")
        return {self.key: self._each(columns[self.source])}

    def _each(self, frames: Iterable[Any]) -> Iterator[NDArray[np.uint8]]:
        before: tuple[Any, NDArray[np.uint8]] | None = None
        for frame in frames:
            if before is None or frame is not before[0]:
                before = frame, self._resize(frame)
            yield before[1]  # again, where a slow camera's picture stands in several rows

    def _resize(self, frame: Any) -> NDArray[np.uint8]:
        try:
            image = np.asarray(frame)
        except ValueError:  # lists of unequal length
            image = np.empty(0, object)
        fits = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
        if not fits or image.dtype != np.uint8:
            raise CodecError(
                f"image '{self.source}' is {image.dtype} {image.shape}, expected uint8 (H, W, 3)"
            )
        return resize_with_pad(image, *self.size)


@dataclass(frozen=True)
class ObjectPoses(Codec):
    """Position, and sine and cosine of four times the yaw, of each object: 5 numbers an object.

    A cube looks the same every 90 degrees, so four times its heading is all there is to know, and
    sine and cosine have no jump. They are computed as the fourth power of the heading on the
    unit circle, ``(c + i s)^4``: only sums, products and roots, which give the same bits for one
    row as for a thousand, where a vectorised sine need not. An object whose x axis is vertical
    has no heading and gets yaw 0.
    """

    kind: ClassVar[str] = "object_poses"
    key: str = "observation.environment_state"
    source: str = "object_poses"
    n_objects: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.n_objects, int) or self.n_objects < 1:
            raise CodecError(f"n_objects is {self.n_objects!r}; give a whole number of at least 1")

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    @override
    def features(self) -> Features:
        parts = ("x", "y", "z", "sin4yaw", "cos4yaw")
        names = [f"object{i}.{part}" for i in range(self.n_objects) for part in parts]
        return {self.key: {"dtype": "float32", "shape": (len(names),), "names": names}}

    @property
    @override
    def origins(self) -> dict[str, tuple[str, ...]]:
        return {self.key: (self.source,) * (5 * self.n_objects)}

    @override
    def encode(self, obs: Row) -> dict[str, NDArray[Any]]:
        poses = read(obs, self.source, 7 * self.n_objects, rows=False)
        require_rotations(self.source, poses)
        return {self.key: self._features(poses)}

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        poses = read(columns, self.source, 7 * self.n_objects, rows=True)
        return {self.key: self._features(poses)}

    def _features(self, flat: NDArray[np.float64]) -> NDArray[np.float32]:
        poses = flat.reshape(*flat.shape[:-1], self.n_objects, 7)
        w, x, y, z = np.moveaxis(poses[..., 3:], -1, 0)
        c = w * w + x * x - y * y - z * z
        s = 2 * (w * z + x * y)
        norm = np.sqrt(c * c + s * s)
        upright = norm > 1e-9
        safe = np.where(upright, norm, 1.0)
        c, s = np.where(upright, c / safe, 1.0), np.where(upright, s / safe, 0.0)
        for _ in range(2):
            c, s = c * c - s * s, 2 * c * s
        heading = np.stack([s, c], axis=-1)
        joined = np.concatenate([poses[..., :3], heading], axis=-1, dtype=np.float32)
        return joined.reshape(*flat.shape[:-1], -1)
