"""Action codec of several arms: the actions of each, one after the other in one vector."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, override

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec, Command, Features, Row
from positronic.codec.fields import key_of, name_of, pairs_of, shown
from positronic.codec.spec import build
from positronic.codec.vectors import read
from positronic.errors import CodecError

MOST_ARMS = 16


@dataclass(frozen=True)
class Arms(Codec):
    """Codec of the actions of several arms, float32 ``(n,)``.

    ``arms`` are pairs of a prefix and the action codec of that arm, in order. A command has the
    prefix before each name: ``left.robot_command``, ``left.target_grip``. The codecs name the
    signals of their arms in full.
    """

    kind: ClassVar[str] = "arms"
    arms: tuple[tuple[str, Codec], ...]
    key: str = "action"

    def __post_init__(self) -> None:
        key_of(self.key, "key")
        arms = tuple((name_of(a, "a prefix"), build(b)) for a, b in pairs_of(self.arms, "arms"))
        prefixes = {prefix for prefix, _ in arms}
        if not 0 < len(arms) <= MOST_ARMS or len(prefixes) != len(arms):
            raise CodecError(f"arms has {len(arms)} arms; give 1 to {MOST_ARMS}, each its prefix")
        for _, arm in arms:
            if not isinstance(arm, Codec) or len(arm.features) != 1 or not arm.action_inputs:
                raise CodecError(f"an arm is {shown(arm)}; give a codec of actions")
        object.__setattr__(self, "arms", arms)
        self.meta  # noqa: B018  raises if the arms have other conventions

    @property
    @override
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for _, arm in self.arms for name in arm.inputs))

    @property
    @override
    def action_inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for _, arm in self.arms for name in arm.action_inputs))

    @property
    @override
    def unsized(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for _, arm in self.arms for name in arm.unsized))

    @override
    def sized(self, sizes: Mapping[str, int]) -> "Arms":
        return self.replace(arms=tuple((prefix, arm.sized(sizes)) for prefix, arm in self.arms))

    @property
    @override
    def features(self) -> Features:
        names = [
            f"{prefix}{name}"
            for prefix, arm in self.arms
            for feature in arm.features.values()
            for name in feature["names"]
        ]
        size = 0 if self.unsized else sum(_size(arm) for _, arm in self.arms)
        return {self.key: {"dtype": "float32", "shape": (size,), "names": names}}

    @property
    @override
    def meta(self) -> dict[str, Any]:
        poses = {prefix: arm.meta.get("pose", {}) for prefix, arm in self.arms}
        grips = [arm.meta["grip"] for _, arm in self.arms if "grip" in arm.meta]
        if any(grip != grips[0] for grip in grips):
            raise CodecError("the grips of the arms count in opposite ways; turn one with FlipGrip")
        return {"pose": poses} | ({"grip": grips[0]} if grips else {})

    @override
    def encode(self, obs: Row, before: Row | None = None) -> dict[str, NDArray[Any]]:
        for _, arm in self.arms:
            arm.encode(obs)
        return {}

    @override
    def encode_action(
        self, obs: Row, before: NDArray[np.float32] | None = None, previous: Row | None = None
    ) -> NDArray[np.float32]:
        parts = [
            arm.encode_action(obs, None if before is None else before[part], previous)
            for _, arm, part in self._slices()
        ]
        return np.concatenate(parts)

    @override
    def encode_action_rows(self, columns: Row) -> NDArray[np.float32]:
        return np.concatenate([arm.encode_action_rows(columns) for _, arm in self.arms], axis=-1)

    @override
    def decode(self, action: Any, obs: Row | None = None, before: Command | None = None) -> Command:
        vector = read({"action": action}, "action", self._total, rows=False)
        found: Command = {}
        for prefix, arm, part in self._slices():
            found |= _prefixed(prefix, arm.decode(vector[part], obs, _own(prefix, before)))
        return found

    @override
    def decode_rows(
        self, actions: Any, obs: Row | None = None, before: Command | None = None
    ) -> list[Command]:
        rows = read({"action": actions}, "action", self._total, rows=True)
        found: list[Command] = [{} for _ in rows]
        for prefix, arm, part in self._slices():
            commands = arm.decode_rows(rows[:, part], obs, _own(prefix, before))
            for command, own in zip(found, commands, strict=True):
                command |= _prefixed(prefix, own)
        return found

    @property
    def _total(self) -> int | None:
        return None if self.unsized else sum(_size(arm) for _, arm in self.arms)

    def _slices(self) -> Iterator[tuple[str, Codec, slice]]:
        start = 0
        for prefix, arm in self.arms:
            yield prefix, arm, slice(start, start := start + _size(arm))


def _size(arm: Codec) -> int:
    return sum(int(feature["shape"][0]) for feature in arm.features.values())


def _prefixed(prefix: str, command: Command) -> Command:
    return {f"{prefix}{name}": value for name, value in command.items()}


def _own(prefix: str, command: Command | None) -> Command | None:
    if command is None:
        return None
    return {k.removeprefix(prefix): v for k, v in command.items() if k.startswith(prefix)}
