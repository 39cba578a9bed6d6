"""Storage API: one set of functions for local paths, ``~``, ``s3://bucket/key`` and ``hf://``.

``s3://PROFILE@bucket/key`` names a profile of :mod:`foundation.storage.s3.client`; endpoint,
region and credentials otherwise come from the usual ``AWS_...`` variables. ``hf://USER/NAME`` and
``hf://datasets/USER/NAME``, on the Hugging Face Hub, are only read from.
Every function raises ``StorageError`` when it fails.
"""

from foundation.storage.hub import SCHEME as HUB
from foundation.storage.hub import is_hub
from foundation.storage.listing import Entry, children, exists, is_whole, listing, pinned, version
from foundation.storage.outbox import output_directory
from foundation.storage.paths import is_remote, join, local
from foundation.storage.reading import fetch, fetch_file, read_bytes
from foundation.storage.tree import Tree
from foundation.storage.writing import publish, remove, require_writable, write_bytes

__all__ = [
    "HUB",
    "Entry",
    "Tree",
    "children",
    "exists",
    "fetch",
    "fetch_file",
    "is_hub",
    "is_remote",
    "is_whole",
    "join",
    "listing",
    "local",
    "output_directory",
    "pinned",
    "publish",
    "read_bytes",
    "remove",
    "require_writable",
    "version",
    "write_bytes",
]
