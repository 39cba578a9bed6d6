"""Parse flag values that several commands take, such as lists of names."""

from collections.abc import Iterable


def names(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Parse a list of names: ``none``, ``a``, ``a,b``, ``[a, b]``, or a list from Python.

    A shell removes quotes, so ``["a.b"]`` reaches a program as ``[a.b]``, which is not a literal.
    """
    if isinstance(value, str):
        listed = [name.strip(" '\"") for name in value.strip("[]()").split(",")]
        return tuple(name for name in listed if name and name.lower() != "none")
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, Iterable) else (str(value),)
