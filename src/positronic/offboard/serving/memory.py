"""How much memory there is for models."""

import os
from pathlib import Path

# What a container may use, in version 2 of control groups and in version 1.
CGROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: of the machine, or of its control group."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in CGROUP_FILES:
        try:
            limits.append(int((cgroups / name).read_text()))
        except (OSError, ValueError):
            continue  # the other version, or "max"
    return min(limits)
