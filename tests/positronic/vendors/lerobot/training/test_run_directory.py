import subprocess
import sys
from pathlib import Path

import pytest

from foundation.errors import StorageError
from foundation.manifest import MANIFEST, faults
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.training.remote_run import run_directory
from positronic.vendors.lerobot.training.run_directory import RunDirectory
from tests.positronic.vendors.lerobot.training.saved import damage, save, weights
from tests.waiting import line_of


def run_in(tmp_path: Path) -> RunDirectory:
    return run_directory(str(tmp_path), "run")


def begin(tmp_path: Path, name: str = "run") -> None:
    with run_directory(str(tmp_path), name) as run:
        run.begin()


def resume(tmp_path: Path) -> Path | None:
    with run_in(tmp_path) as run:
        return run.resume()


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    begin(tmp_path)
    for step in (10, 20, 30):
        save(tmp_path / "run", step)
    return tmp_path / "run"


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    run_in(tmp_path / "deep").require_fresh()
    begin(tmp_path / "deep")
    with pytest.raises(StorageError, match="exists already; .* --resume=True"):
        run_in(tmp_path / "deep").require_fresh()
    with pytest.raises(StorageError, match="exists already"):
        begin(tmp_path / "deep")
    begin(tmp_path / "deep", "another")


def test_the_newest_is_gone_on_from(begun: Path) -> None:
    with run_in(begun.parent) as run:
        assert run.resume() == begun / "checkpoints/000030"
        with run.publishing():
            run.saved(save(begun, 40))
    assert names(begun / "checkpoints") == ["000010", "000020", "000030", "000040", "last"]


def test_by_number_not_by_name(begun: Path) -> None:
    save(begun, 1_000_000)
    assert resume(begun.parent) == begun / "checkpoints/1000000"


def test_what_is_not_whole_is_named_and_passed_over(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(begun / "checkpoints/000030")
    (begun / "checkpoints/000040").mkdir()
    (begun / "checkpoints/.unfinished-000050").mkdir()
    assert resume(begun.parent) == begun / "checkpoints/000020"
    told = capsys.readouterr().err.splitlines()
    assert f"passing over {begun}/checkpoints/000040: it has no {MANIFEST}" in told[0]
    assert "000030: pretrained_model/model.safetensors does not have the digest" in told[1]
    # They are kept, and not in the way.
    found = names(begun / "checkpoints")
    assert found == [".damaged-000030", ".damaged-000040", "000010", "000020", "last"]
    assert (begun / "checkpoints/last").readlink() == Path("000020")


def test_damaged_twice(begun: Path) -> None:
    for _ in range(2):
        damage(begun / "checkpoints/000030")
        resume(begun.parent)
        save(begun, 30)
    assert {".damaged-000030", ".damaged-000030-2"} <= set(names(begun / "checkpoints"))
    assert faults(begun / "checkpoints/000030") == []


def test_nothing_whole_is_not_begun_anew(begun: Path) -> None:
    for step in (10, 20, 30):
        weights(begun / f"checkpoints/{step:06d}").unlink()
    with pytest.raises(CheckpointError, match="no whole checkpoint: 000030 .* missing") as error:
        resume(begun.parent)
    assert "000010" in str(error.value)
    assert "000010" in names(begun / "checkpoints")


def test_killed_before_the_first_checkpoint(tmp_path: Path) -> None:
    begin(tmp_path)
    assert resume(tmp_path) is None


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        resume(tmp_path)
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_train_one_run(begun: Path) -> None:
    program = (
        "import sys\n"
        "from positronic.vendors.lerobot.training.remote_run import run_directory\n"
        f"run = run_directory({str(begun.parent)!r}, 'run')\n"
        "run.resume()\n"
        "print('there', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert line_of(other.stdout, "the other process") == b"there\n"
        with pytest.raises(StorageError, match="is being trained by another process"):
            resume(begun.parent)
        other.kill()
    assert resume(begun.parent) == begun / "checkpoints/000030"
