"""When the samples of a signal were, by its parquet file.

Public Positronic up to 0.2 wrote one column of timestamps, called ``timestamp`` or ``ts_ns``. Since
0.3 there may be several, ``ts.<time line>`` int64 (ns): when a sample was made, received, and
handled by the recorder, each by the wall clock and by the world's, which in simulation is MuJoCo's
time. Such files say so in their schema's metadata. Read in the sources of the releases 0.3.0 to
0.4.1.
"""

from typing import Any

VERSION = b"positronic.signal_version"
NAMED = b"2"
PREFIX = "ts."
# The order in which its own converter takes them. All are of the same clock, so that the signals of
# an episode are, too, whichever of these each of them has; the converter leaves out those that lack
# the first that any of them has.
ORDER = ("harness.world", "received.world", "recorded")


def time_column(file: Any, unnamed: str) -> str | None:
    """The column with the timestamps of an open parquet file; ``unnamed`` is the older one's.

    None where a recorder without a sample wrote no time line; ValueError when it cannot be told.
    """
    names = file.schema_arrow.names
    version = (file.schema_arrow.metadata or {}).get(VERSION)
    if version is None:
        if unnamed not in names:
            raise ValueError(f"it has no column {unnamed!r}")
        return unnamed
    if version != NAMED:
        raise ValueError(f"it has format version {version.decode()}, known are 1 and 2")
    for line in ORDER:
        if PREFIX + line in names:
            return PREFIX + line
    if file.metadata.num_rows == 0:
        return None
    found = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    raise ValueError(f"its time lines are {found}, expected one of {list(ORDER)}")


def column_bounds(file: Any, column: str | None) -> tuple[int, int] | None:
    """First and last timestamp by the footer's statistics of an ascending column, else None."""
    metadata = file.metadata
    if metadata.num_rows == 0:
        return None
    position = file.schema.names.index(column)
    ends = [metadata.row_group(i).column(position) for i in (0, metadata.num_row_groups - 1)]
    if any(e.statistics is None or not e.statistics.has_min_max for e in ends):
        return None
    return int(ends[0].statistics.min), int(ends[1].statistics.max)
