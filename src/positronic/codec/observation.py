"""Observation codecs: numeric vectors, camera images, and object poses."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec, Features, Row
from positronic.codec.fields import (
    MOST_NUMBERS,
    MOST_PIXELS,
    key_of,
    listed,
    name_of,
    pairs_of,
    shown,
    size_of,
    whole_of,
)
from positronic.codec.images import require_image, resize_with_pad
from positronic.codec.rotations import (
    ROTATION,
    SIZES,
    WXYZ,
    encode_poses,
    reference_for,
    rotation_of,
    stored_reference,
)
from positronic.codec.vectors import (
    LATER,
    QUAT_REFERENCE,
    Quaternion,
    read,
    reference_of,
    require_rotations,
)
from positronic.errors import CodecError

MOST_OBJECTS = 1000


@dataclass(frozen=True)
class Vector(Codec):
    """Codec of a vector: numeric signals joined, float32 ``(n,)``.

    ``signals`` are pairs of name and number of elements, in order; None is filled in by `sized`. A
    signal of seven elements whose name ends in ``pose`` is a position and a unit quaternion, wxyz.
    It is written as ``rotation`` says (`positronic.codec.rotations`), and its sign aligned with
    ``quat_reference`` (`positronic.codec.vectors`).
    """

    kind: ClassVar[str] = "vector"
    key: str
    signals: tuple[tuple[str, int | None], ...]
    quat_reference: Quaternion | None = field(default=QUAT_REFERENCE, metadata=LATER)
    rotation: str = field(default=WXYZ, metadata=ROTATION)

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        signals = tuple(
            (name_of(name, "a signal"), size_of(size, f"the size of {name}", MOST_NUMBERS))
            for name, size in pairs_of(self.signals, "signals")
        )
        object.__setattr__(self, "signals", signals)
        if not self.unsized:
            total = sum(size or 0 for _, size in signals)
            whole_of(total, "the size of all signals", MOST_NUMBERS)
        rotation, reference = rotation_of(self.rotation), reference_of(self.quat_reference)
        if not any(_is_pose(name, size) for name, size in signals):
            rotation, reference = WXYZ, None  # nothing to write, or to align
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "quat_reference", reference_for(rotation, reference))

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.signals)

    @property
    @override
    def unsized(self) -> tuple[str, ...]:
        return tuple(name for name, size in self.signals if size is None)

    @override
    def sized(self, sizes: Mapping[str, int]) -> "Vector":
        signals = ((n, sizes.get(n) if size is None else size) for n, size in self.signals)
        return self.replace(signals=tuple(signals))

    @property
    @override
    def features(self) -> Features:
        size = 0 if self.unsized else sum(self._widths)
        return {self.key: {"dtype": "float32", "shape": (size,), "names": list(self.inputs)}}

    @property
    @override
    def origins(self) -> dict[str, tuple[str, ...]]:
        widths = zip(self.inputs, self._widths, strict=True)
        return {self.key: tuple(name for name, width in widths for _ in range(width))}

    @property
    @override
    def quaternions(self) -> dict[str, dict[int, tuple[float, ...]]]:
        found: dict[int, tuple[float, ...]] = {}
        start = 0
        reference = self.quat_reference
        stored = None if reference is None else stored_reference(self.rotation, reference)
        for (name, size), width in zip(self.signals, self._widths, strict=True):
            if stored is not None and _is_pose(name, size):
                found[start + 3] = stored
            start += width
        return {self.key: found} if found else {}

    @property
    def _widths(self) -> tuple[int, ...]:
        """How many elements each signal has when encoded."""
        pose = 3 + SIZES[self.rotation]
        return tuple(pose if _is_pose(name, size) else size or 0 for name, size in self.signals)

    @override
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        return {self.key: self._joined(obs, (before or {}).get(self.key), rows=False)}

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        return {self.key: self._joined(columns, None, rows=True)}

    def _joined(
        self, source: Row, before: NDArray[Any] | None, *, rows: bool
    ) -> NDArray[np.float32]:
        parts, start, width = [], 0, 3 + SIZES[self.rotation]
        for name, size in self.signals:
            part = read(source, name, size, rows=rows)
            if _is_pose(name, size):
                require_rotations(name, part)
                last = None if before is None else before[start : start + width]
                part = encode_poses(part, self.rotation, self.quat_reference, last)
            parts.append(part)
            start += part.shape[-1]
        return np.concatenate(parts, axis=-1).astype(np.float32)


def _is_pose(name: str, size: int | None) -> bool:
    return size == 7 and name.endswith("pose")


@dataclass(frozen=True)
class Image(Codec):
    """Codec of one camera: uint8 ``(height, width, 3)``, its aspect kept, padded with black.

    ``size`` is ``(height, width)``.
    """

    kind: ClassVar[str] = "image"
    key: str
    source: str
    size: tuple[int, int]

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        name_of(self.source, "source")
        pair = isinstance(self.size, list | tuple)
        size = tuple(self.size) if pair else (self.size, self.size)
        if len(size) != 2 or not all(type(n) is int and 0 < n <= MOST_PIXELS for n in size):
            raise CodecError(
                f"image_size is {shown(self.size)}; give [height, width] in pixels, at most"
                f" {MOST_PIXELS} each"
            )
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
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        return {self.key: self._resize(self._given(obs))}

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        return {self.key: self._each(self._given(columns))}

    def _given(self, source: Row) -> Any:
        if self.source not in source:
            raise CodecError(f"image '{self.source}' is missing; present: {listed(source)}")
        return source[self.source]

    def _each(self, frames: Iterable[Any]) -> Iterator[NDArray[np.uint8]]:
        before: tuple[Any, NDArray[np.uint8]] | None = None
        for frame in frames:
            if before is None or frame is not before[0]:
                before = frame, self._resize(frame)
            yield before[1]  # several times, if a slow camera's frame is in several rows

    def _resize(self, frame: Any) -> NDArray[np.uint8]:
        image = require_image(self.source, frame)
        return resize_with_pad(image, *self.size)


@dataclass(frozen=True)
class ObjectPoses(Codec):
    """Codec of objects: position, sine and cosine of four times the yaw; float32 ``(5 n,)``.

    A cube looks the same every 90 degrees, so four times its heading is unambiguous, and sine and
    cosine have no discontinuity. They are computed as the fourth power of the heading on the unit
    circle, ``(c + i s)^4``: sums, products and roots give the same bits for one row as for a
    thousand, which a vectorised sine need not. An object whose x axis is vertical has no heading
    and gets yaw 0.
    """

    kind: ClassVar[str] = "object_poses"
    key: str = "observation.environment_state"
    source: str = "object_poses"
    n_objects: int = 2

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        name_of(self.source, "source")
        whole_of(self.n_objects, "n_objects", MOST_OBJECTS)

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
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        return {self.key: self._features(self._poses(obs, rows=False))}

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        return {self.key: self._features(self._poses(columns, rows=True))}

    def _poses(self, source: Row, *, rows: bool) -> NDArray[np.float64]:
        poses = read(source, self.source, 7 * self.n_objects, rows=rows)
        require_rotations(self.source, poses)
        return poses

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
