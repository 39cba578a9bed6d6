"""Sanitise untrusted text for a message, a log or a terminal: one line, printable, not too long."""

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
