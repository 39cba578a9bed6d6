"""Codec of a LeRobot dataset's own features: neither observations nor actions are converted.

It serves policies that were trained on data of others. A client sends the features by LeRobot's
names, and gets the policy's ``action`` in the order and the units of the dataset.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec, Command, Features, Row
from positronic.codec.fields import (
    MOST_NUMBERS,
    MOST_PIXELS,
    key_of,
    listed,
    name_of,
    tuple_of,
    whole_of,
)
from positronic.codec.images import require_image
from positronic.codec.vectors import read
from positronic.errors import CodecError

ACTION = "action"
IMAGES = ("video", "image")
NUMBERS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")

Column = tuple[str, str, tuple[int, ...], tuple[str, ...] | None]


@dataclass(frozen=True)
class LeRobotFeatures(Codec):
    """Codec that changes nothing: vectors float32 ``(n,)``, images uint8 ``(H, W, 3)``.

    ``columns`` are name, dtype, shape and the names of the elements (or None) of each feature, as
    in ``meta/info.json``. The feature ``action`` is what a policy predicts; features whose name
    begins so are not observed.
    """

    kind: ClassVar[str] = "lerobot"
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        columns = tuple(map(_column, tuple_of(self.columns, "columns")))
        names = [name for name, *_ in columns]
        if len(set(names)) < len(names):
            raise CodecError(f"two features have the same name, of {listed(names)}")
        object.__setattr__(self, "columns", columns)

    @classmethod
    def of(cls, features: Mapping[str, Mapping[str, Any]]) -> Self:
        """Create from LeRobot feature dicts, whose images are ``(H, W, 3)``."""
        columns = ((n, f["dtype"], f["shape"], f.get("names")) for n, f in features.items())
        return cls(tuple(columns))

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name, *_ in self.columns if not name.startswith(ACTION))

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return (ACTION,) if ACTION in self.features else ()

    @property
    @override
    def features(self) -> Features:
        return {
            name: {"dtype": dtype, "shape": shape, "names": None if names is None else list(names)}
            for name, dtype, shape, names in self.columns
        }

    @property
    @override
    def origins(self) -> dict[str, tuple[str, ...]]:
        return {name: (name,) * size for name, size in self._sizes.items() if name != ACTION}

    @property
    def _sizes(self) -> dict[str, int]:
        """How many elements each vector has."""
        observed = {*self.inputs, ACTION}
        return {n: s[0] for n, d, s, _ in self.columns if d not in IMAGES and n in observed}

    @override
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        return {
            name: self._vector(obs, name, rows=False)
            if name in self._sizes
            else self._image(_given(obs, name), name)
            for name in self.inputs
        }

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        return {
            name: self._vector(columns, name, rows=True)
            if name in self._sizes
            else self._images(_given(columns, name), name)
            for name in self.inputs
        }

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        return self._vector(obs, ACTION, rows=False)

    @override
    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        return self._vector(columns, ACTION, rows=True)

    @override
    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        return {ACTION: self._vector({ACTION: action}, ACTION, rows=False)}

    def _vector(self, source: Row, name: str, *, rows: bool) -> NDArray[np.float32]:
        if name not in self._sizes:
            raise CodecError(f"codec '{self.name}' has no feature '{name}'")
        value = source.get(name)
        if self.features[name]["dtype"] == "bool" and isinstance(value, np.ndarray):
            source = {name: value.astype(np.float32)}
        return read(source, name, self._sizes[name], rows=rows).astype(np.float32)

    def _images(self, frames: Iterable[Any], name: str) -> Iterator[NDArray[np.uint8]]:
        return (self._image(frame, name) for frame in frames)

    def _image(self, frame: Any, name: str) -> NDArray[np.uint8]:
        height, width, _ = self.features[name]["shape"]
        image = require_image(name, frame, f"uint8 ({height}, {width}, 3)")
        if image.shape[:2] != (height, width):
            # Another aspect or resolution than in training would pass unseen.
            raise CodecError(
                f"image '{name}' is {image.shape[0]} x {image.shape[1]} pixels (height x width),"
                f" expected {height} x {width}, as in the dataset; resize it before sending"
            )
        return image


def _given(row: Row, name: str) -> Any:
    if name not in row:
        raise CodecError(f"image '{name}' is missing; present: {listed(row)}")
    return row[name]


def _column(value: Any) -> Column:
    """Return one of the columns, validated: CodecError says what is wrong with it."""
    parts = tuple_of(value, "a feature")
    if len(parts) != 4:
        raise CodecError("a feature of the codec 'lerobot' is its name, dtype, shape and names")
    name, dtype, shape, names = parts
    key_of(name, "a feature")
    shape = tuple_of(shape, f"the shape of {name}")
    if dtype in IMAGES:
        if len(shape) != 3 or shape[2] != 3:
            raise CodecError(f"{name} has another shape than an image's, (height, width, 3)")
    elif dtype not in NUMBERS or len(shape) != 1:
        raise CodecError(f"{name} is neither a vector of numbers nor an image")
    for size in shape:
        whole_of(size, f"the shape of {name}", MOST_PIXELS if dtype in IMAGES else MOST_NUMBERS)
    if names is not None:
        names = tuple(name_of(each, f"a name in {name}") for each in tuple_of(names, name))
    return name, dtype, shape, names
