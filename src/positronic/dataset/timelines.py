"""Timestamp column of a signal's parquet file, in each format of public Positronic.

Public Positronic up to 0.2 wrote one timestamp column, called ``timestamp`` or ``ts_ns``. Since 0.3
there may be several, ``ts.<time line>`` int64 (ns): when a sample was made, received, and handled
by the recorder, each by the wall clock and by the world clock, which in simulation is MuJoCo's
time. The schema metadata of such files states a format version. Read in the sources of the releases
0.3.0 to 0.4.1.
"""

from foundation.tables import Table
from foundation.text import printable

VERSION = b"positronic.signal_version"
NAMED = b"2"
PREFIX = "ts."
# In the order of preference of public Positronic's converter. All use the same clock, so signals of
# an episode may use different ones of these; that converter leaves out signals that lack the first
# one that any signal has.
ORDER = ("harness.world", "received.world", "recorded")


def time_column(table: Table, unnamed: str) -> str | None:
    """The timestamp column of an open parquet file; ``unnamed`` is its name in format version 1.

    None if the file has neither samples nor time lines; ValueError if it cannot be determined.
    """
    names = table.names
    version = table.metadata.get(VERSION)
    if version is None:
        if unnamed not in names:
            raise ValueError(f"it has no column {unnamed!r}")
        return unnamed
    if version != NAMED:
        found = printable(version.decode(errors="replace"), 20)
        raise ValueError(f"its format version is {found}, expected 1 or 2")
    for line in ORDER:
        if PREFIX + line in names:
            return PREFIX + line
    if table.rows == 0:
        return None
    lines = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    raise ValueError(f"its time lines are {printable(lines)}, expected one of {list(ORDER)}")
