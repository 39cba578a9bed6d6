"""Shared base of :mod:`getiaction` and :mod:`positronic`: storage and bounded readers.

Exports its errors; everything else is in its modules: :mod:`foundation.storage`,
:mod:`foundation.documents`, :mod:`foundation.tables`.
"""

from foundation.errors import (
    Forbidden,
    FoundationError,
    IntegrityError,
    MissingDependency,
    NotFound,
    PreconditionFailed,
    StorageError,
    UsageError,
)

__all__ = [
    "Forbidden",
    "FoundationError",
    "IntegrityError",
    "MissingDependency",
    "NotFound",
    "PreconditionFailed",
    "StorageError",
    "UsageError",
]
