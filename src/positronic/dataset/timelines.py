"""Timestamp column of a signal's parquet file, in each format of public Positronic.

Public Positronic up to 0.2 wrote one column of timestamps, called ``timestamp`` or ``ts_ns``. Since
0.3 there may be several, ``ts.<time line>`` int64 (ns): when a sample was made, received, and
handled by the recorder, each by the wall clock and by the world's, which in simulation is MuJoCo's
time. Such files say so in their schema's metadata. Read in the sources of the releases 0.3.0 to
0.4.1.
"""

from foundation.tables import Table
from foundation.text import printable

VERSION = b"positronic.signal_version"
NAMED = b"2"
PREFIX = "ts."
# The order in which its own converter takes them. All are of the same clock, so that the signals of
# an episode are, too, whichever of these each of them has; the converter leaves out those that lack
# the first that any of them has.
ORDER = ("harness.world", "received.world", "recorded")


def time_column(table: Table, unnamed: str) -> str | None:
    """The column with the timestamps of an open parquet file; ``unnamed`` is the older one's.

    None where a recorder without a sample wrote no time line; ValueError when it cannot be told.
    """
    names = table.names
    version = table.metadata.get(VERSION)
    if version is None:
        if unnamed not in names:
            raise ValueError(f"it has no column {unnamed!r}")
        return unnamed
    if version != NAMED:
        found = printable(version.decode(errors="replace"), 20)
        raise ValueError(f"it has format version {found}, known are 1 and 2")
    for line in ORDER:
        if PREFIX + line in names:
            return PREFIX + line
    if table.rows == 0:
        return None
    lines = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    raise ValueError(f"its time lines are {printable(lines)}, expected one of {list(ORDER)}")
