"""S3 storage: verified transfers, atomic publication of directories, a bounded local mirror.

Importing it imports nothing heavy; the package for S3 is loaded with the first connection.
"""

from foundation.storage.s3.location import SCHEME, Location
from foundation.storage.s3.manifest import read_manifest
from foundation.storage.s3.mirror import fetch, fetch_file
from foundation.storage.s3.objects import list_children
from foundation.storage.s3.publishing import publish, remove
from foundation.storage.s3.snapshot import take_snapshot

__all__ = [
    "SCHEME",
    "Location",
    "fetch",
    "fetch_file",
    "list_children",
    "publish",
    "read_manifest",
    "remove",
    "take_snapshot",
]
