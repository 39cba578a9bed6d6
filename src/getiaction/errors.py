"""Base of the errors that :mod:`getiaction` raises on purpose; messages are one line."""

from foundation.errors import FoundationError


class GetiactionError(FoundationError):
    """A configuration, dataset or policy that cannot be used as asked."""
