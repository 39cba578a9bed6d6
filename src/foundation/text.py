"""Text of messages: untrusted text made printable, and the nearest of the names there are."""

import difflib
from collections.abc import Iterable

LONGEST = 200


def printable(text: object, limit: int = LONGEST) -> str:
    """Return ``str(text)`` on one line: no control characters, and at most ``limit`` characters.

    What a terminal would obey (escape sequences, carriage returns, text direction) is shown as an
    escape such as ``\\x1b``; runs of white space become one space. Only the first ``limit``
    characters are looked at, so that it takes the same time however long the text is.
    """
    whole = text if isinstance(text, str) else str(text)
    start = whole[: limit + 1]
    line = " ".join(start.split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return shown if len(whole) <= limit and len(shown) <= limit else f"{shown[: limit - 3]}..."


def did_you_mean(word: str, offered: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` with the nearest of the names offered, or nothing."""
    names = {name.lower(): name for name in offered}
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
