"""Prefixes of commands that cannot write where others can; for real, without privileges."""

import os
import subprocess
from pathlib import Path

import pytest

# Of a user namespace, in which whoever tests may mount.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o ro none "$0" && exec "$@"'


def read_only(directory: Path) -> list[str]:
    """For the command that follows, ``directory`` is empty and on a read-only file system."""
    words = [*NAMESPACE, "sh", "-c", MOUNT, str(directory)]
    _skip_unless_it_works(words, "mount within a user namespace")
    return words


def unprivileged() -> list[str]:
    """Whoever tests as root is refused what belongs to others and is not for them."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    _skip_unless_it_works(words, "give privileges up with setpriv")
    return words


def _skip_unless_it_works(words: list[str], what: str) -> None:
    try:
        worked = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        worked = False
    if not worked:
        pytest.skip(f"cannot {what} here")
