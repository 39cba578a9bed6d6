"""Progress where output is not a terminal: plain lines, no control characters."""

import pytest

from foundation.progress import track


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2, 3], total=3, desc="working", unit="ep")) == [1, 2, 3]
    err = capsys.readouterr().err
    assert "working" in err
    assert "3/3" in err
    assert "\r" not in err
    assert all(line.strip() for line in err.splitlines())
