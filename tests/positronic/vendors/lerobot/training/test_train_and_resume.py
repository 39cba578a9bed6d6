"""The training command, stopped and resumed: on S3, on another machine, with nothing repeated."""

import json
import os
import re
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundation import storage
from foundation.manifest import faults
from getiaction.train import StepReport
from positronic.vendors.lerobot.train import status
from tests.positronic.vendors.lerobot.small_dataset import write_dataset

STEPS = 9
FLAGS = [
    "--run_name=run",
    "--policy=.act_state",
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=32",
    "--policy.chunk_size=6",
    "--policy.n_action_steps=4",
    "--policy.warmup_steps=2",
    f"--steps={STEPS}",
    "--save_freq=3",
    "--batch_size=4",
    "--log_freq=1",
    "--device=cpu",
]
# An epoch has 3 batches, of which the last makes a step by itself.
HELD_OUT = ["--val_split=0.5", "--accumulate=2", "--eval_freq=2"]
S3 = ["--dataset_root=s3://bucket/dataset", "--output_dir=s3://bucket/out"]
RUN = "s3://bucket/out/run"


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset") / "dataset", (10, 9))


def command(*words: object) -> int:
    with warnings.catch_warnings():
        return status([str(word) for word in (*FLAGS, *words)])


def log(capsys: pytest.CaptureFixture[str]) -> tuple[dict[int, str], dict[int, str]]:
    """What the log says of each step, without timings, and of each validation."""
    text = capsys.readouterr().err
    trained = re.findall(r"^step (\d+)/\d+  (loss \S+  grad \S+  lr \S+)", text, re.MULTILINE)
    validated = re.findall(r"^validation at step (\d+): (loss \S+)", text, re.MULTILINE)
    return (
        {int(step): said for step, said in trained},
        {int(step): said for step, said in validated},
    )


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: signal.Signals) -> None:
    """Let a signal come in the midst of a step."""
    original = StepReport.on_train_batch_start

    def start(self: StepReport, trainer: Any, *args: Any) -> None:
        original(self, trainer, *args)
        if trainer.global_step == step - 1:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(StepReport, "on_train_batch_start", start)


def weights(place: str | Path) -> bytes:
    return storage.read_bytes(
        storage.join(place, f"checkpoints/{STEPS:06d}/pretrained_model/model.safetensors")
    )


@pytest.mark.parametrize(
    ("step", "more"), [(4, []), (2, HELD_OUT), (7, HELD_OUT)], ids=["plain", "epoch", "within"]
)
def test_stopped_on_s3_and_resumed_elsewhere(
    dataset_root: Path,
    tmp_path: Path,
    s3: Any,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    step: int,
) -> None:
    local = [f"--dataset_root={dataset_root}", f"--output_dir={tmp_path}"]
    assert command(*local, *more) == 0
    trained, validated = log(capsys)
    assert list(trained) == list(range(1, STEPS + 1))
    assert bool(validated) == bool(more)

    storage.publish(dataset_root, "s3://bucket/dataset")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        assert command(*S3, *more) == 128 + signal.SIGTERM
    done, seen = log(capsys)
    assert list(done) == list(range(1, step + 1))
    assert storage.read_bytes(f"{RUN}/checkpoints/last").decode() == f"{step:06d}\n"

    shutil.rmtree(tmp_path / "cache")
    # The settings come from the run itself.
    assert command(*S3, "--resume=True") == 0
    rest, later = log(capsys)
    assert not done.keys() & rest.keys()
    assert done | rest == trained
    assert seen | later == validated
    assert weights(RUN) == weights(tmp_path / "run")


def test_what_is_published(
    dataset_root: Path, tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.publish(dataset_root, "s3://bucket/dataset")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 5, signal.SIGTERM)
        assert command(*S3) == 143
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"SIGTERM: ended after step 5, saved as {RUN}/checkpoints/000005; the same command with "
        "--resume=True goes on"
    )
    native = f"{RUN}/checkpoints/000005/pretrained_model/train_config.json"
    assert json.loads(storage.read_bytes(native))["dataset"]["root"] == "s3://bucket/dataset"
    curves = {name: published(name) for name in storage.children(f"{RUN}/tensorboard")}
    assert len(curves) == 1
    assert storage.children(f"{RUN}/checkpoints") == ["000003", "000005", "last"]
    assert len(yaml.safe_load(published_config())["provenance"]["starts"]) == 1

    shutil.rmtree(tmp_path / "cache")
    assert command(*S3, "--resume=True") == 0
    assert set(storage.children(f"{RUN}/tensorboard")) > set(curves)
    for name, content in curves.items():
        assert published(name) == content
    everything = ["000003", "000005", "000006", "000009", "last"]
    assert storage.children(f"{RUN}/checkpoints") == everything
    starts = yaml.safe_load(published_config())["provenance"]["starts"]
    assert [start["step"] for start in starts] == [0, 5]


def published(name: str) -> bytes:
    return storage.read_bytes(f"{RUN}/tensorboard/{name}")


def published_config() -> bytes:
    return storage.read_bytes(f"{RUN}/config.yaml")


def test_ctrl_c_saves_as_well(
    dataset_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop_at(monkeypatch, 4, signal.SIGINT)
    flags = [f"--dataset_root={dataset_root}", f"--output_dir={tmp_path}"]
    assert command(*flags) == 130
    assert faults(tmp_path / "run/checkpoints/000004") == []
    assert "SIGINT: ended after step 4" in capsys.readouterr().err


def test_told_to_end_while_the_data_is_prepared(
    dataset_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "getiaction.data.LeRobotDataModule.prepare",
        lambda self, config: os.kill(os.getpid(), signal.SIGTERM),
    )
    flags = [f"--dataset_root={dataset_root}", f"--output_dir={tmp_path}"]
    former = signal.getsignal(signal.SIGTERM)
    assert command(*flags) == 143
    assert capsys.readouterr().err.endswith("ended before the first step, with nothing to save\n")
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGTERM) is former
    # Nothing is left in the way.
    monkeypatch.undo()
    assert command(*flags) == 0


def test_a_name_that_is_taken_on_s3(
    dataset_root: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.publish(dataset_root, "s3://bucket/dataset")
    assert command(*S3, "--steps=1") == 0
    assert command(*S3, "--steps=1") == 1
    assert f"{RUN} exists already" in capsys.readouterr().err
