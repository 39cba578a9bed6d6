"""Validation of a codec's fields, given in Python code or a document."""

from collections.abc import Iterable
from typing import Any

from foundation.text import printable
from positronic.errors import CodecError

# Far above any camera, robot or policy, and low enough to bound memory.
MOST_PIXELS = 4096
MOST_NUMBERS = 100_000
LONGEST_NAME = 200


def name_of(value: Any, what: str) -> str:
    """Return ``value`` if it is the name of a signal: printable text of at most 200 characters.

    Raises:
        CodecError: it is not.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise CodecError(
            f"{what} is {shown(value)}; give a name of 1 to {LONGEST_NAME} printable characters"
        )
    return value


def key_of(value: Any, what: str) -> str:
    """Return ``value`` if it is a valid feature name, which is used in file names.

    Raises:
        CodecError: it is not.
    """
    key = name_of(value, what)
    if "/" in key or "\\" in key or key.startswith("."):
        raise CodecError(f"{what} is {shown(key)}; give the name of a feature, without slashes")
    return key


def whole_of(value: Any, what: str, most: int) -> int:
    """Return ``value`` if it is a whole number from 1 to ``most``.

    Raises:
        CodecError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise CodecError(f"{what} is {shown(value)}; give a whole number from 1 to {most}")
    return value


def size_of(value: Any, what: str, most: int) -> int | None:
    """As `whole_of`, or None for a size that is not known yet.

    Raises:
        CodecError: it is neither.
    """
    return None if value is None else whole_of(value, what, most)


def pairs_of(value: Any, what: str) -> tuple[tuple[Any, Any], ...]:
    """Return ``value`` as a tuple of pairs.

    Raises:
        CodecError: it is not made of pairs.
    """
    pairs = tuple(tuple_of(pair, what) for pair in tuple_of(value, what))
    if any(len(pair) != 2 for pair in pairs):
        raise CodecError(f"{what} is {shown(value)}; give a list of pairs")
    return tuple((first, second) for first, second in pairs)


def tuple_of(value: Any, what: str) -> tuple[Any, ...]:
    """Return a list or tuple as a tuple.

    Raises:
        CodecError: it is neither.
    """
    if not isinstance(value, list | tuple):
        raise CodecError(f"{what} is {shown(value)}; give a list")
    return tuple(value)


def shown(value: Any) -> str:
    """Return ``value`` for a message: one line, short, without formatting huge values."""
    if isinstance(value, str):
        return f"'{printable(value, 60)}'"
    if value is None or isinstance(value, bool | int | float):
        return printable(_number(value), 60)
    if isinstance(value, list | tuple) and len(value) <= 8 and all(map(_is_number, value)):
        return printable(f"[{', '.join(map(_number, value))}]", 60)
    return f"a {type(value).__name__}"


def listed(names: Iterable[Any], most: int = 20) -> str:
    """Return a list of names for a message, limited in number and length."""
    found: list[str] = []
    more = 0
    for name in names:
        if len(found) < most:
            found.append(printable(name, 60) if isinstance(name, str) else shown(name))
        else:
            more += 1
    text = ", ".join(sorted(found)) or "nothing"
    return f"{text} and {more} more" if more else text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _number(value: Any) -> str:
    # Python does not convert integers of more than 4300 digits to text.
    large = isinstance(value, int) and value.bit_length() > 1000
    return "a number of more than 300 digits" if large else repr(value)
