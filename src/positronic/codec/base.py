"""Codec and stage base classes, and their composition by ``&`` and ``|``."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.fields import LONGEST_NAME, listed, shown, tuple_of
from positronic.codec.spec import Described, build
from positronic.errors import CodecError

Row = Mapping[str, Any]
"""Values by name: the raw signals of one observation, or of an episode as columns."""

Command = dict[str, Any]
"""One command for a robot: ``{"robot_command": {...}, "target_grip": float}``."""

Features = dict[str, dict[str, Any]]
"""LeRobot feature dicts: ``dtype``, ``shape`` and ``names`` of each feature by its name."""


class Codec(Described):
    """Observation encoder and action decoder: raw signals to features, actions to commands.

    A codec of observations only inherits the action methods from here, and vice versa; ``&``
    combines the two. Every subclass is a frozen dataclass.
    """

    @property
    def name(self) -> str:
        """Display name; part of the contract."""
        return self.kind

    @property
    def inputs(self) -> tuple[str, ...]:
        """Raw signals that `encode` reads: a client must send them, a conversion sample them."""
        return ()

    @property
    def action_inputs(self) -> tuple[str, ...]:
        """Raw signals that `encode_action` reads; only recordings have them."""
        return ()

    @property
    def unsized(self) -> tuple[str, ...]:
        """Raw signals whose number of elements is still open, as in a codec made by flags."""
        return ()

    def sized(self, sizes: Mapping[str, int]) -> "Codec":
        """The codec with the numbers of elements that are open taken from ``sizes``, by signal."""
        return self

    @property
    def features(self) -> Features:
        """LeRobot feature dicts, ``{name: {"dtype", "shape", "names"}}``, in their final order.

        The shape is ``(0,)`` while `unsized` names a signal of it.
        """
        return {}

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata for clients: ``pose``, ``grip`` and ``image_sizes``, if applicable."""
        return {}

    @property
    def origins(self) -> dict[str, tuple[str, ...]]:
        """The raw signal of each element of each encoded vector.

        `Limits` checks the vectors that are named here, and no others.
        """
        return {}

    @property
    def quaternions(self) -> dict[str, dict[int, tuple[float, ...]]]:
        """Aligned quaternions in encoded vectors: index of the first element, and the reference."""
        return {}

    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        """Encode one observation: vectors float32 ``(n,)``, images uint8 ``(H, W, 3)``.

        Args:
            obs: the raw signals.
            before: the encoded previous observation of the same episode; None for the first one.
                Quaternions stay in its hemisphere (`positronic.codec.vectors`).

        Raises:
            CodecError: a signal is missing, has another shape or type, is not finite, or is a
                pose whose quaternion is not of unit length.
        """
        return {}

    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        """Encode many observations, each signal given as a column with one row per time step.

        The columns are those of one episode. Vectors are returned as arrays ``(T, n)``, bit for bit
        equal to `encode` row by row, each with the previous row as ``before``; images as an
        iterator that decodes, encodes and yields one frame at a time, so that an episode need not
        fit in memory.

        Raises:
            CodecError: as `encode`.
        """
        return {}

    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        """The training target ``(n,)`` of one recorded row.

        Args:
            obs: the raw signals.
            before: the target of the previous row of the episode; None for the first one.
            previous: the raw signals of that row, for targets that are relative to it.

        Raises:
            CodecError: as `encode`.
        """
        raise CodecError(f"codec '{self.name}' encodes observations only; it has no action")

    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        """The training targets ``(T, n)`` of an episode, equal to `encode_action` row by row."""
        raise CodecError(f"codec '{self.name}' encodes observations only; it has no action")

    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        """One action ``(n,)`` of the policy as ``{"robot_command": {...}, "target_grip": float}``.

        Args:
            action: the action.
            obs: raw signals of the observation that it was predicted from; relative actions need
                them.
            before: the command in force at that observation, if it is known.

        Raises:
            CodecError: the action has another shape, is not finite, or holds no rotation; or it is
                relative, and ``obs`` lacks a signal.
        """
        raise CodecError(f"codec '{self.name}' encodes observations only; it has no action")

    def decode_rows(
        self, actions: Any, obs: Row | None = None, before: Command | None = None
    ) -> list[Command]:
        """A chunk of actions ``(T, n)`` predicted from one observation.

        Absolute ones are equal, bit for bit, to `decode` row by row.
        """
        return [self.decode(action, obs, before) for action in actions]

    def __and__(self, other: "Codec") -> "Parallel":
        """Both codecs on the same observation; their features must not clash."""
        left = self.parts if isinstance(self, Parallel) and not self.label else (self,)
        right = other.parts if isinstance(other, Parallel) and not other.label else (other,)
        return Parallel((*left, *right))


class Stage(Described):
    """Rewrites raw signals before a codec, and its commands after it.

    Both methods get either one row or columns, so they must be elementwise.
    """

    def sources(self, names: Iterable[str]) -> tuple[str, ...]:
        """The raw signals from which `encode` supplies ``names``."""
        return tuple(names)

    def encode(self, row: Row) -> Row:
        """Rewrite the raw signals of a row (or columns)."""
        return row

    def decode(self, command: Command) -> Command:
        """Rewrite a decoded command before it is sent to the robot.

        A pose must stay where it is: relative actions continue from the command sent before.
        """
        return command

    def describe(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Convert the codec's ``meta`` to the raw side of this stage."""
        return meta

    def __or__(self, other: Codec) -> "Sequential":
        """This stage, then ``other``; decoding runs in reverse order."""
        return Sequential(self, other)


@dataclasses.dataclass(frozen=True)
class Parallel(Codec):
    """Several codecs on one observation, with merged outputs; created by ``&``."""

    kind: ClassVar[str] = "parallel"
    parts: tuple[Codec, ...]
    label: str = ""

    def __post_init__(self) -> None:
        parts = tuple(build(part) for part in tuple_of(self.parts, "parts"))
        for part in parts:
            if not isinstance(part, Codec):
                raise CodecError(f"a part is {shown(part)}; expected codecs, each after its stages")
        label = self.label
        if not isinstance(label, str) or len(label) > LONGEST_NAME or not label.isprintable():
            raise CodecError(f"label is {shown(label)}; expected a printable name")
        object.__setattr__(self, "parts", parts)
        _merge("feature", ((part.name, part.features) for part in self.parts))
        self.meta  # noqa: B018  raises on a clash

    @property
    @override
    def name(self) -> str:
        return self.label or "&".join(part.name for part in self.parts)

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.inputs))

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.action_inputs))

    @property
    @override
    def unsized(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.unsized))

    @override
    def sized(self, sizes: Mapping[str, int]) -> "Parallel":
        return self.replace(parts=tuple(part.sized(sizes) for part in self.parts))

    @property
    @override
    def features(self) -> Features:
        return {name: feature for part in self.parts for name, feature in part.features.items()}

    @property
    @override
    def origins(self) -> dict[str, tuple[str, ...]]:
        return {name: origin for part in self.parts for name, origin in part.origins.items()}

    @property
    @override
    def quaternions(self) -> dict[str, dict[int, tuple[float, ...]]]:
        return {name: found for part in self.parts for name, found in part.quaternions.items()}

    @property
    @override
    def meta(self) -> dict[str, Any]:
        sizes = [part.meta.get("image_sizes", {}) for part in self.parts]
        rest = (
            (part.name, {k: v for k, v in part.meta.items() if k != "image_sizes"})
            for part in self.parts
        )
        merged = _merge("meta", rest, allow_equal=True)
        if any(sizes):
            merged["image_sizes"] = {name: size for part in sizes for name, size in part.items()}
        return merged

    @override
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        _require(obs, self.inputs, self.name)
        encoded = (part.encode(obs, before) for part in self.parts)
        return {name: value for features in encoded for name, value in features.items()}

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        _require(columns, self.inputs, self.name)
        return {
            name: value for part in self.parts for name, value in part.encode_rows(columns).items()
        }

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        return self._actor.encode_action(obs, before, previous)

    @override
    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        return self._actor.encode_action_rows(columns)

    @override
    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        return self._actor.decode(action, obs, before)

    @override
    def decode_rows(
        self, actions: Any, obs: Row | None = None, before: Command | None = None
    ) -> list[Command]:
        return self._actor.decode_rows(actions, obs, before)

    @property
    def _actor(self) -> Codec:
        for part in self.parts:
            if part.action_inputs:
                return part
        raise CodecError(f"codec '{self.name}' encodes observations only; it has no action")


@dataclasses.dataclass(frozen=True)
class Sequential(Codec):
    """A stage, then a codec; created by ``|``."""

    kind: ClassVar[str] = "sequential"
    stage: Stage
    codec: Codec

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", build(self.stage))
        object.__setattr__(self, "codec", build(self.codec))
        if not isinstance(self.stage, Stage):
            raise CodecError(f"stage is {shown(self.stage)}; expected a stage")
        if not isinstance(self.codec, Codec):
            raise CodecError(f"codec is {shown(self.codec)}; expected a codec")

    @property
    @override
    def name(self) -> str:
        return f"{self.stage.kind}|{self.codec.name}"

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return self.stage.sources(self.codec.inputs)

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return self.stage.sources(self.codec.action_inputs)

    @property
    @override
    def unsized(self) -> tuple[str, ...]:
        return self.stage.sources(self.codec.unsized)

    @override
    def sized(self, sizes: Mapping[str, int]) -> "Sequential":
        inner = self.codec.unsized
        known = zip(inner, self.stage.sources(inner), strict=True)
        return self.replace(codec=self.codec.sized({a: sizes[b] for a, b in known if b in sizes}))

    @property
    @override
    def features(self) -> Features:
        return self.codec.features

    @property
    @override
    def origins(self) -> dict[str, tuple[str, ...]]:
        return {name: self.stage.sources(origin) for name, origin in self.codec.origins.items()}

    @property
    @override
    def quaternions(self) -> dict[str, dict[int, tuple[float, ...]]]:
        return self.codec.quaternions

    @property
    @override
    def meta(self) -> dict[str, Any]:
        return self.stage.describe(self.codec.meta)

    @override
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        _require(obs, self.inputs, self.name)
        return self.codec.encode(self.stage.encode(obs), before)

    @override
    def encode_rows(self, columns: Row) -> dict[str, Iterable[NDArray[Any]]]:
        _require(columns, self.inputs, self.name)
        return self.codec.encode_rows(self.stage.encode(columns))

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        _require(obs, self.action_inputs, self.name)
        previous = None if previous is None else self.stage.encode(previous)
        return self.codec.encode_action(self.stage.encode(obs), before, previous)

    @override
    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        _require(columns, self.action_inputs, self.name)
        return self.codec.encode_action_rows(self.stage.encode(columns))

    @override
    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        obs = None if obs is None else self.stage.encode(obs)
        return self.stage.decode(self.codec.decode(action, obs, before))

    @override
    def decode_rows(
        self, actions: Any, obs: Row | None = None, before: Command | None = None
    ) -> list[Command]:
        obs = None if obs is None else self.stage.encode(obs)
        return [self.stage.decode(each) for each in self.codec.decode_rows(actions, obs, before)]


def _merge(
    what: str, parts: Iterable[tuple[str, Mapping[str, Any]]], *, allow_equal: bool = False
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for part, values in parts:
        for name, value in values.items():
            if name in merged and not (allow_equal and merged[name] == value):
                raise CodecError(
                    f"'{owner[name]}' and '{part}' both have {what} '{name}'; rename one of them"
                )
            merged[name], owner[name] = value, part
    return merged


def _require(row: Row, names: Iterable[str], codec: str) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise CodecError(f"codec '{codec}' needs {listed(missing)}; present: {listed(row)}")
