import time

import pytest

from foundation.text import LONGEST, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grüße, 世界", "grüße, 世界"),
        ("a\n\tb\r\n c", "a b c"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x1b[2J\x9b2J", r"\x1b[2J\x9b2J"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\ud800\U000e0001", r"\ud800\U000e0001"),
        ("\x00", r"\x00"),
        (ValueError("a\nb"), "a b"),
        (None, "None"),
        ("", ""),
    ],
)
def test_text_is_printable(text: object, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


@pytest.mark.parametrize("text", ["a" * 1000, "\x1b" * 150, "a " * 500, "\n" * 1000, "𝄞" * 199])
def test_text_is_bounded(text: str) -> None:
    for limit in (LONGEST, 20):
        assert len(printable(text, limit)) <= limit


def test_long_text_takes_no_longer() -> None:
    begun = time.process_time()
    printable("key " * 10_000_000)
    assert time.process_time() - begun < 0.5
