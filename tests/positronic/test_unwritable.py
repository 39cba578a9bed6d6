"""Every command that writes says at once, in one line, that it cannot, and what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.positronic.vendors.lerobot.raw import record
from tests.unwritable import read_only, unprivileged

ROOT = Path(__file__).parents[2]
CODEC = "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute"
HOLD = "--policy=@tests.positronic.inference.policies.hold"
# What each begins with, were it not refused, takes its time or is not there at all.
COMMANDS = {
    "record": ["positronic.data_collection", "scripted", "--output_dir={place}"],
    "convert": [
        *("positronic.vendors.lerobot.convert", "convert", "--dataset.dataset={raw}", CODEC),
        *("--fps=15", "--output_dir={place}"),
    ],
    "train": [
        *("positronic.vendors.lerobot.train", "--dataset_root={raw}/none", "--run_name=r"),
        "--output_dir={place}",
    ],
    "sim": ["positronic.inference.command", "sim", HOLD, "--output_dir={place}"],
    "films": ["positronic.inference.command", "sim", HOLD, "--video={place}"],
    "compare": [
        *("positronic.inference.command", "compare", HOLD, HOLD.replace("policy", "against", 1)),
        "--output_dir={place}",
    ],
    "open_loop": [
        *("positronic.inference.command", "open_loop", HOLD, "--dataset=@positronic.cfg.ds.local"),
        *("--dataset.path={raw}", "--output_dir={place}"),
    ],
}


def refused(prefix: list[str], words: list[str], place: Path, raw: Path) -> str:
    module, *flags = [word.format(place=place, raw=raw) for word in words]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", f"from {module} import main; main()", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    record(root, 0)
    return root


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_read_only_file_system(words: list[str], raw: Path, tmp_path: Path) -> None:
    err = refused(read_only(tmp_path), words, tmp_path / "data/x", raw)
    assert f" error: {tmp_path}/data/x" in err
    assert "is on a read-only file system; choose another folder" in err
    assert f"-v {tmp_path}/data:{tmp_path}/data" in err


def test_a_folder_of_somebody_elses(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    err = refused(unprivileged(), COMMANDS["record"], tmp_path / "theirs/x", raw)
    assert f" error: {tmp_path}/theirs/x: permission denied; {tmp_path}/theirs belongs to" in err
