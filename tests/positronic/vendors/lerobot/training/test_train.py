"""The training command: what it refuses, and what it leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from positronic.codec import stats_digest
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.positronic.vendors.lerobot.training.training_commands import (
    CODEC,
    command,
    flags,
    log_lines,
    refused,
    weights,
)


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a conversion with ``eepose_state`` leaves: 2 episodes, 21 frames, its contract."""
    return write_dataset(tmp_path_factory.mktemp("train") / "dataset")


@pytest.fixture(scope="module")
def trained(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 8 steps, saved at 3, 6 and 8."""
    output_dir = tmp_path_factory.mktemp("trained")
    assert command(*flags(dataset_root, output_dir, "--steps=8", "--save_freq=3")) == 0
    return output_dir / "run"


def test_each_checkpoint_is_whole_and_carries_the_contract(
    trained: Path, dataset_root: Path
) -> None:
    runs = CheckpointDirectory(trained)
    assert runs.ids() == ["000003", "000006", "000008"]
    for name in runs.ids():
        contract = runs.checkpoint(name).verify()
        assert (contract.chunk_size, contract.n_action_steps) == (6, 4)
        stats = json.loads((dataset_root / "meta/stats.json").read_text())
        assert contract.stats_digest == stats_digest(stats, contract.features)
        assert contract.codec["name"] == "eepose_state"
    assert (trained / "checkpoints/last").readlink() == Path("000008")
    assert list((trained / "tensorboard").glob("events.out.*"))


def test_a_resumed_run_ends_with_the_same_weights(
    trained: Path, dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Begun with the same flags, killed after step 6: the links and files that it left."""
    import shutil

    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir, symlinks=True)
    shutil.rmtree(run_dir / "checkpoints/000008")
    half = run_dir / "checkpoints/.unfinished-000008"
    half.mkdir()
    (run_dir / "checkpoints/000007").mkdir()  # names a step, and has nothing in it
    again = flags(dataset_root, tmp_path, "--steps=8", "--save_freq=3", "--resume=True")
    assert command(*again) == 0
    assert log_lines(capsys.readouterr().err)[-1].startswith("step 8/8")
    assert weights(run_dir) == weights(trained)
    assert not half.exists()


def test_the_same_command_twice_gives_the_same_weights(
    trained: Path, dataset_root: Path, tmp_path: Path
) -> None:
    assert command(*flags(dataset_root, tmp_path, "--steps=8", "--save_freq=0")) == 0
    assert weights(tmp_path / "run") == weights(trained)
    assert CheckpointDirectory(tmp_path / "run").ids() == ["000008"]


def test_the_right_codec_is_taken(dataset_root: Path, tmp_path: Path) -> None:
    more = ["--steps=1", f"{CODEC}.eepose_state"]
    assert command(*flags(dataset_root, tmp_path, *more)) == 0


def test_log_lines_say_what_they_should(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*flags(dataset_root, tmp_path, "--steps=4")) == 0
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("step ")]
    assert [line.split("  ")[0] for line in lines] == ["step 2/4", "step 4/4"]
    for word in ("loss ", "grad ", "lr ", " samples/s", " ms (data ", "eta "):
        assert all(word in line for line in lines)
    assert max(map(len, lines)) < 90  # and 100 with steps of six digits


def test_missing_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, 1, *flags(tmp_path / "none", tmp_path))
    assert "there is no dataset at" in error


def test_recordings_instead_of_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw/000000000000/000000000000").mkdir(parents=True)
    error = refused(capsys, 1, *flags(tmp_path / "raw", tmp_path))
    assert error.endswith(
        "; it holds raw episodes, for `positronic-to-lerobot convert"
        f" --dataset.dataset={tmp_path}/raw`\n"
    )


def test_existing_run(
    trained: Path, dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, 1, *flags(dataset_root, trained.parent))
    assert "exists already" in error
    assert "--resume=True" in error


def test_nothing_to_resume(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, 1, *flags(dataset_root, tmp_path, "--resume=True"))
    assert "nothing to resume" in error


def test_resuming_a_finished_run(
    trained: Path, dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(dataset_root, trained.parent, "--steps=8", "--resume=True")
    assert "give a larger --steps" in refused(capsys, 2, *words)


def test_resuming_as_another_policy(
    trained: Path, dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--steps=9", "--resume=True", "--policy.dropout=0.3"]
    error = refused(capsys, 1, *flags(dataset_root, trained.parent, *more))
    assert "--policy.dropout was 0.0 and is 0.3" in error
    assert error.count("--policy.") == 1


def test_another_codec(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [f"{CODEC}.joints_absolute"]
    error = refused(capsys, 1, *flags(dataset_root, tmp_path, *more))
    assert "joints_absolute" in error
    assert "eepose_state" in error
    assert not (tmp_path / "run").exists()


def test_statistics_that_were_changed(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    root = shutil.copytree(dataset_root, tmp_path / "changed")
    stats = json.loads((root / "meta/stats.json").read_text())
    stats["action"]["mean"][0] += 1
    (root / "meta/stats.json").write_text(json.dumps(stats))
    assert "digest differs" in refused(capsys, 1, *flags(root, tmp_path))


def test_mistyped_policy_field(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, 2, *flags(dataset_root, tmp_path, "--policy.dim_modle=4"))
    assert "did you mean '--policy.dim_model'?" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "field",
    ["dim_model=7", "optimizer_lr=-1", "chunk_size=-1", "n_heads=3"],
)
def test_numbers_that_do_not_go_together_leave_no_run(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    """PyTorch asserts, or fails only when an optimizer is made."""
    words = [f"--policy.{field}"] + (["--policy.n_action_steps=-1"] if "chunk" in field else [])
    error = refused(capsys, 1, *flags(dataset_root, tmp_path, *words))
    assert "policy 'act' " in error
    assert not (tmp_path / "run").exists()


def test_unknown_preset(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, 2, *flags(dataset_root, tmp_path, "--policy=.act_stat"))
    assert "act_state" in error


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--run_name=../x", "expected the name of a directory"),
        ("--steps=0", "--steps is 0"),
        ("--batch_size=0", "--batch_size is 0"),
        ("--save_freq=-1", "--save_freq is -1"),
        ("--device=tpu", "expected one of: auto, cpu, cuda"),
    ],
)
def test_values_that_make_no_sense(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, words: str
) -> None:
    assert words in refused(capsys, 2, *flags(dataset_root, tmp_path, flag))


def test_help_and_refusals_come_before_heavy_imports(dataset_root: Path, tmp_path: Path) -> None:
    mismatch = flags(dataset_root, tmp_path, f"{CODEC}.joints_absolute")
    program = (
        "import sys\n"
        "from positronic.vendors.lerobot.train import status\n"
        "assert status(['--help']) == 0\n"
        f"assert status({mismatch!r}) == 1\n"
        "heavy = {'torch', 'lerobot', 'lightning', 'pyarrow', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
