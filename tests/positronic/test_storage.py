import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from positronic import cli
from positronic import storage as command
from tests.foundation.storage.s3.files import held, made

FILES = {"a.txt": b"a", "deep/b": b"bb"}
COMMANDS: dict[str, Any] = {
    "ls": command.ls,
    "fetch": command.fetch,
    "publish": command.publish,
    "remove": command.remove,
}


def run(*words: str) -> int:
    return cli.status(COMMANDS, "storage", words)


def test_directories_come_and_go(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, uri = made(tmp_path / "source", FILES), "s3://bucket/place"
    begun = b'{"format":1,"whole":false,"files":{}}'
    storage.write_bytes("s3://bucket/half/.published.json", begun)
    storage.write_bytes("s3://bucket/odd/.published.json", b'{"files":{"../x":{}}}')
    assert run("publish", f"--directory={source}", f"--uri={uri}") == 0
    assert run("ls", "--uri=s3://bucket") == 0
    assert run("ls", f"--uri={uri}", "--all=True") == 0
    assert run("fetch", f"--uri={uri}", f"--directory={tmp_path}/copy") == 0
    assert held(tmp_path / "copy") == FILES
    assert run("remove", f"--uri={uri}", "--files=a.txt,deep/b") == 0
    assert capsys.readouterr().out.splitlines() == [
        uri,
        "half  (unfinished)",
        "odd  (unreadable)",
        "place",
        "             1  a.txt",
        "             2  deep/b",
        str(tmp_path / "copy"),
        f"removed {uri}/a.txt",
        f"removed {uri}/deep/b",
    ]
    assert not storage.exists(uri)


def test_what_makes_no_sense_is_refused_in_a_line(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.write_bytes("s3://bucket/place/a", b"")
    for words, expected in {
        ("ls", "--uri=s3://bucket/none"): "there is nothing at s3://bucket/none",
        ("ls", "--uri=s3://lab@bucket/none"): "there is no profile 'lab'; known are PUBLIC",
        ("fetch", "--uri=s3://bucket/place", f"--directory={tmp_path}"): "exists already",
        ("remove", "--uri=s3://bucket/place", "--files=b"): "has no b; nothing was removed",
    }.items():
        assert run(*words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line


def test_help_is_quick_to_import() -> None:
    code = """
import runpy, sys
sys.argv = ["storage", "publish", "--help"]
try:
    runpy.run_module("positronic.storage", run_name="__main__")
except SystemExit as end:
    assert end.code == 0
assert not {"boto3", "torch", "numpy"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--directory" in done.stdout
