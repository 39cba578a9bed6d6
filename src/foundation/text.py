"""Text of messages: untrusted text made printable, and "did you mean" suggestions."""

import difflib
from collections.abc import Iterable

LONGEST = 200


def printable(text: object, limit: int = LONGEST) -> str:
    """Return ``str(text)`` on one line: no control characters, and at most ``limit`` characters.

    Characters that control a terminal (escape sequences, carriage returns, text direction) are
    shown as escapes such as ``\\x1b``; runs of white space become one space. Only the first
    ``limit`` characters are looked at, so that it takes the same time however long the text is.
    """
    whole = text if isinstance(text, str) else str(text)
    start = whole[: limit + 1]
    line = " ".join(start.split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return shown if len(whole) <= limit and len(shown) <= limit else f"{shown[: limit - 3]}..."


def did_you_mean(word: str, offered: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` with the nearest of the offered names, or an empty string."""
    names = {name.lower(): name for name in offered}
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
