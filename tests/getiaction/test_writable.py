import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.writable import describe, require_writable
from tests.unwritable import read_only, unprivileged

ROOT = Path(__file__).parents[2]
ASK = """
import sys
from foundation.writable import describe, require_writable
try:
    require_writable(sys.argv[1])
except OSError as error:
    print(describe(error))
"""
# The trainers' own look, before they open a dataset or make a network.
TRAINERS = """
import sys
from getiaction.train import Trainer
from getiaction.trainers import LeRobotTrainer
from foundation.writable import describe
place = sys.argv[1]
for name, fit in (
    ("lightning", lambda: Trainer(default_root_dir=place, logger=False).fit(None)),
    ("lerobot", lambda: LeRobotTrainer(output_dir=place).fit("act", "no/such")),
):
    try:
        fit()
    except OSError as error:
        print(name, describe(error))
"""


def asked(prefix: list[str], code: str, place: Path) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, str(place)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_place_that_can_be_made_is_accepted_and_not_made(tmp_path: Path) -> None:
    require_writable(tmp_path)
    require_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with pytest.raises(NotADirectoryError) as error:
            require_writable(place)
        told = describe(error.value)
        assert told == f"{tmp_path}/file: a file is in the way; give another directory"


def test_a_name_without_its_directory_is_not_joined_to_another() -> None:
    """As `shutil.rmtree` tells them."""
    told = describe(PermissionError(errno.EACCES, "Permission denied", "contract.json"))
    assert told == "contract.json: Permission denied"


def test_a_read_only_file_system(tmp_path: Path) -> None:
    place = tmp_path / "mounted" / "data" / "x"
    (tmp_path / "mounted").mkdir()
    told = asked(read_only(tmp_path / "mounted"), ASK, place)
    assert told == (
        f"{place} is on a read-only file system; choose another folder. In a container only "
        "mounted folders can be written to and outlive it, such as ~/datasets and ~/checkpoints; "
        f"others are mounted with -v {place.parent}:{place.parent}\n"
    )


def test_a_folder_of_somebody_elses(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o555)
    told = asked(unprivileged(), ASK, theirs / "x")
    assert told.startswith(f"{theirs}/x: permission denied; {theirs} belongs to ")
    assert f"(uid {os.getuid()}) (dr-xr-xr-x), and this program runs as " in told
    assert "choose another folder, or have its owner" in told


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/data/x", "-v /data:/data"),
        ("/data", "-v /data:/data"),
        ("/usr/no-such-folder", "-v /usr:/usr"),
        ("/usr/bin", "-v /usr/bin:/usr/bin"),
        ("~/no-such-folder", "-v ~/no-such-folder:{home}/no-such-folder"),
    ],
)
def test_the_advice_names_the_folder_to_mount(
    path: str, mount: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    error = OSError(errno.EROFS, "Read-only file system", os.path.expanduser(path))
    assert describe(error).endswith(mount.format(home=tmp_path))


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        ("~/.cache/positronic/s3", "XDG_CACHE_HOME"),
        ("~/.cache", "XDG_CACHE_HOME"),
        ("~", "XDG_CACHE_HOME"),
        ("~/.local/share/positronic/outbox", "XDG_DATA_HOME"),
    ],
)
def test_a_folder_that_no_flag_names_is_changed_by_a_variable(
    path: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for code in (errno.EROFS, errno.EACCES):
        error = OSError(code, os.strerror(code), os.path.expanduser(path))
        assert f"let {variable} name another folder" in describe(error)


def test_other_errors_name_their_file() -> None:
    assert describe(OSError(errno.ENOSPC, "No space left", "/a/b")) == "/a/b: No space left"
    assert describe(OSError(errno.ENOSPC, "No space left")) == "No space left"
    assert describe(OSError("nothing known")) == "nothing known"


@pytest.mark.e2e
def test_trainers_look_before_they_train(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    told = asked(read_only(tmp_path / "mounted"), TRAINERS, tmp_path / "mounted" / "run")
    lightning, lerobot = told.splitlines()
    assert lightning.startswith(f"lightning {tmp_path}/mounted/run is on a read-only file system")
    assert lerobot.startswith(f"lerobot {tmp_path}/mounted/run is on a read-only file system")
