"""One rule for paths: a local path, ``~``, or ``s3://bucket/key``.

``s3://PROFILE@bucket/key`` names a profile of :mod:`getiaction.storage.profiles`, on which all of
this is built; endpoint, region and credentials otherwise come from the usual ``AWS_...`` variables.
Every function raises ``StorageError`` when it fails.
"""

from positronic.storage.outbox import output_directory
from positronic.storage.places import Entry, children, exists, is_whole, listing, version
from positronic.storage.reading import fetch, fetch_file, read_bytes
from positronic.storage.tree import Tree
from positronic.storage.uri import is_remote, join, local
from positronic.storage.writing import publish, remove, require_writable, write_bytes

__all__ = [
    "Entry",
    "Tree",
    "children",
    "exists",
    "fetch",
    "fetch_file",
    "is_remote",
    "is_whole",
    "join",
    "listing",
    "local",
    "output_directory",
    "publish",
    "read_bytes",
    "remove",
    "require_writable",
    "version",
    "write_bytes",
]
