"""The one error that :mod:`getiaction` raises on purpose, and what to say of a missing package.

The message is one line: what was wrong, what was expected, how to mend it.
"""


class GetiactionError(Exception):
    """A configuration, dataset or policy that cannot be used as asked."""


def missing_package(package: str, extra: str) -> str:
    """Return what to do where ``package``, which ``extra`` of the distribution brings, is not."""
    return (
        f"this needs the package {package!r}, which is not installed; install the extra that brings"
        f" it: positronic-lightning[{extra}], in a checkout by `make` or `uv run --extra {extra}`"
    )
