"""Codec stages for recordings with other signal names or another grip convention."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, override

import numpy as np

from positronic.codec.base import Command, Row, Stage
from positronic.codec.fields import name_of, pairs_of, tuple_of


@dataclass(frozen=True)
class Rename(Stage):
    """Stage that renames signals: ``names`` are pairs of wanted and recorded name.

    Later public recordings call the arm's command ``robot_command.pose``:
    ``Rename((("robot_commands.pose", "robot_command.pose"),)) | eepose_absolute()``.
    """

    kind: ClassVar[str] = "rename"
    names: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        pairs = pairs_of(self.names, "names")
        names = tuple((name_of(a, "a name"), name_of(b, "a name")) for a, b in pairs)
        object.__setattr__(self, "names", names)

    @override
    def sources(self, names: Iterable[str]) -> tuple[str, ...]:
        table = dict(self.names)
        return tuple(table.get(name, name) for name in names)

    @override
    def encode(self, row: Row) -> Row:
        return {**row, **{new: row[old] for new, old in self.names if old in row}}


@dataclass(frozen=True)
class FlipGrip(Stage):
    """Stage for a grip that is 0 open and 1 closed, as in public data since July 2026.

    The policy still learns 1 as open; commands are converted back to the robot's convention.
    """

    kind: ClassVar[str] = "flip_grip"
    signals: tuple[str, ...] = ("grip", "target_grip")

    def __post_init__(self) -> None:
        signals = tuple_of(self.signals, "signals")
        object.__setattr__(self, "signals", tuple(name_of(name, "a signal") for name in signals))

    @override
    def encode(self, row: Row) -> Row:
        return {**row, **{name: _inverted(row[name]) for name in self.signals if name in row}}

    @override
    def decode(self, command: Command) -> Command:
        grips = {"target_grip", *self.signals} & command.keys()
        return {**command, **{name: 1.0 - command[name] for name in grips}}

    @override
    def describe(self, meta: dict[str, Any]) -> dict[str, Any]:
        return {**meta, "grip": {"open": 0.0, "closed": 1.0}}


def _inverted(value: Any) -> Any:
    """The inverted grip; other values are left for the codec to reject."""
    if not isinstance(value, np.ndarray | np.number | int | float | list | tuple):
        return value
    if isinstance(value, list | tuple) and not all(isinstance(x, int | float) for x in value[:2]):
        return value
    try:
        grip = np.asarray(value)
    except (ValueError, OverflowError):  # lists of unequal length
        return value
    return 1.0 - grip if grip.dtype.kind in "fiu" else value
