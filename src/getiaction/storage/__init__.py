"""S3 as a place for data: verified transfers, atomic publications, a bounded local mirror.

Importing it imports nothing heavy; the package for S3 is loaded with the first connection.
"""

from getiaction.storage.location import SCHEME, Location
from getiaction.storage.manifest import read_manifest
from getiaction.storage.mirror import fetch, fetch_file
from getiaction.storage.objects import list_children
from getiaction.storage.patience import NotThere, Overtaken
from getiaction.storage.publishing import publish
from getiaction.storage.removal import remove
from getiaction.storage.snapshot import take_snapshot

__all__ = [
    "SCHEME",
    "Location",
    "NotThere",
    "Overtaken",
    "fetch",
    "fetch_file",
    "list_children",
    "publish",
    "read_manifest",
    "remove",
    "take_snapshot",
]
