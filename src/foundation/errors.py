"""Exception hierarchy: FoundationError, and the errors of usage, storage and documents.

Every message is one line for a person: what was wrong, what was expected, how to mend it.

::

    FoundationError
    ├── UsageError               a flag or argument that is invalid
    ├── MissingDependency        an optional extra or a system library is not installed
    ├── InvalidDocument          content of a file that somebody else wrote (foundation.documents)
    ├── StorageError             a path or an object that cannot be read or written
    │   ├── NotFound             nothing is there
    │   ├── Forbidden            the credentials do not allow it
    │   ├── PreconditionFailed   somebody else has changed it meanwhile
    │   └── IntegrityError       what is stored is not what was written
    ├── GetiactionError          a configuration, dataset or policy (getiaction.errors)
    └── PositronicError          everything of robots (positronic.errors)
"""


class FoundationError(Exception):
    """Base of every error that is raised on purpose; its message is one line for a person."""


class UsageError(FoundationError):
    """A flag or argument that is invalid."""


class MissingDependency(FoundationError):
    """An optional extra or a system library is not installed; the message says how to get it."""


class StorageError(FoundationError):
    """A path or an object in S3 that does not exist, exists already, or cannot be used."""


class NotFound(StorageError):
    """Nothing is at that address."""


class Forbidden(StorageError):
    """The credentials do not allow it."""


class PreconditionFailed(StorageError):
    """Somebody else has changed it since it was read."""


class IntegrityError(StorageError):
    """Stored content is damaged or incomplete: its digest is not the one it was written with."""
