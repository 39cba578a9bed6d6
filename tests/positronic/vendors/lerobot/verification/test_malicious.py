"""Datasets that mean harm: `verify` says what is wrong, and reads nothing beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from positronic import cli
from positronic.vendors.lerobot.verification.info import info
from positronic.vendors.lerobot.verification.verify import verify
from tests.malicious_datasets import CAMERA, DATA, MALICIOUS, bomb, text, write

VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
# Another file of the machine, as FFmpeg reads it from a playlist under the name of a video.
PLAYLIST = "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
ALL: dict[str, Callable[[Path], Any]] = {
    **{name: damage for name, damage, _ in MALICIOUS},
    "rows bomb": bomb(DATA),
    "a playlist for a video": text(VIDEO, PLAYLIST),
    "a list of files for a video": text(VIDEO, "ffconcat version 1.0\nfile /etc/passwd\n"),
}


def around(root: Path) -> dict[str, Any]:
    """Everything beside the dataset: names, and when they were changed."""
    return {
        path.relative_to(root.parent).as_posix(): path.lstat().st_mtime_ns
        for path in root.parent.rglob("*")
    }


@pytest.mark.parametrize("name", ALL)
def test_it_is_named(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "around" / "dataset")
    ALL[name](root)
    before = around(root)
    words = ["verify", f"--dataset_root={root}", "--workers=1"]
    assert cli.status({"verify": verify}, "positronic-to-lerobot", words) == 1
    captured = capfd.readouterr()
    lines = (captured.out + captured.err).splitlines()
    faults = [line for line in lines if line.startswith(("fault: ", "positronic-to-lerobot: "))]
    assert faults
    assert "Traceback" not in captured.err
    assert "bug" not in captured.err
    assert all(fault.isprintable() and len(fault) < 600 for fault in faults)
    assert "passwd" not in "".join(faults).replace("'/etc/passwd'", "")
    cli.status({"info": info}, "positronic-to-lerobot", ["info", f"--dataset_root={root}"])
    assert "Traceback" not in capfd.readouterr().err
    assert around(root) == before
