"""Ground of :mod:`getiaction` and :mod:`positronic`: files here and in S3, read within bounds.

Its errors are offered here, all else by its modules: :mod:`foundation.storage`,
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
