"""What the options of the training command change, and what they leave as it is."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from positronic.dataset.trained_on import DIGITS, dataset_name, is_among
from positronic.source import commit
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.serving.provenance import trained_on
from positronic.vendors.lerobot.train import PROG
from positronic.vendors.lerobot.training import effective
from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.positronic.vendors.lerobot.training.training_commands import (
    command,
    flags,
    log_lines,
    refused,
    weights,
)


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of recordings a and b, 24 frames: batches of 8 come out even."""
    root = write_dataset(tmp_path_factory.mktemp("train") / "dataset", (12, 12))
    recordings = [{"source": name, "uid": name, "frames": 12} for name in "ab"]
    Provenance({"episodes": recordings}).save(root)
    return root


@pytest.fixture(scope="module")
def trained(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps without any option."""
    output_dir = tmp_path_factory.mktemp("trained")
    assert command(*flags(dataset_root, output_dir, "--steps=6", "--save_freq=0")) == 0
    return output_dir / "run"


def curves(run_dir: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a run: values by name and step."""
    package = "tensorboard.backend.event_processing.event_accumulator"
    events: Any = import_module(package).EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return {
        name: {point.step: point.value for point in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def signed(run_dir: Path, step: str) -> Any:
    file = run_dir / "checkpoints" / step / "pretrained_model/provenance.json"
    return json.loads(file.read_text())


def test_a_run_from_its_own_settings_is_the_same(
    trained: Path, tmp_path: Path, dataset_root: Path
) -> None:
    settings = yaml.safe_load((trained / "config.yaml").read_text())
    assert settings["policy"]["dim_model"] == 16
    assert settings["policy"]["latent_dim"] == 32  # one that nobody gave
    again = [f"--config={trained}/config.yaml", f"--output_dir={tmp_path}"]
    assert command(*again) == 0
    assert weights(tmp_path / "run") == weights(trained)
    other = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    provenance = settings.pop("provenance")
    assert provenance["dataset"]["root"] == str(dataset_root)
    assert provenance["dataset"]["frames"] == 24
    assert provenance["dataset"]["codec"] == "eepose_state"
    assert [start["step"] for start in provenance["starts"]] == [0]
    assert {"torch", "lerobot", "lightning"} < provenance["starts"][0]["versions"].keys()
    assert provenance["starts"][0]["commit"] == commit()
    del other["provenance"]
    assert other == {**settings, "output_dir": str(tmp_path)}


def test_a_run_goes_on_by_its_own_settings(
    dataset_root: Path,
    tmp_path: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is said but which run it is; what was logged twice is shown once."""
    monkeypatch.setattr(effective, "commit", lambda: "aa" * 20)
    assert (
        command(*flags(dataset_root, tmp_path, "--steps=5", "--save_freq=3", "--log_freq=1")) == 0
    )
    shutil.rmtree(tmp_path / "run/checkpoints/000005")
    run = ["--run_name=run", f"--output_dir={tmp_path}", "--resume=True"]
    monkeypatch.setattr(effective, "commit", lambda: "bb" * 20)
    assert command(*run, "--steps=6") == 0
    assert [line.split()[1] for line in log_lines(capsys.readouterr().err)][-3:] == [
        "4/6",
        "5/6",
        "6/6",
    ]
    # The learning rate falls to zero by the last step, which is another one now.
    losses = curves(tmp_path / "run")["train/loss_mean"]
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    provenance = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["provenance"]
    starts = [(start["step"], start["commit"]) for start in provenance["starts"]]
    assert starts == [(0, "aa" * 20), (3, "bb" * 20)]
    # Who has but the checkpoint finds in it who trained it.
    last = signed(tmp_path / "run", "000006")
    assert len(last["dataset"].pop("recordings")) == 2 * DIGITS
    assert last == provenance
    assert signed(tmp_path / "run", "000003")["starts"] == provenance["starts"][:1]
    assert provenance["starts"][1]["versions"]["positronic-lightning"]
    for flag, says in {
        "--accumulate=2": "--accumulate was 1 and is 2",
        "--precision=bf16-mixed": "--precision was None and is bf16-mixed",
        "--val_split=0.5": "--val_split was 0.0 and is 0.5",
        "--policy.warmup_steps=3": "--policy.warmup_steps was 2 and is 3",
    }.items():
        assert says in refused(capsys, 1, *run, "--steps=7", flag)


def test_looking_how_good_it_is_changes_nothing(
    dataset_root: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = ["--eval_env=stack_cubes", "--eval_freq=4", "--eval_episodes=1"]
    short = ["--steps=6", "--save_freq=0"]
    assert command(*flags(dataset_root, tmp_path, *short, *looks)) == 0
    assert weights(tmp_path / "run") == weights(trained)
    assert "validation at step 4: 0/1 succeeded (0.0-79.3 %)" in capsys.readouterr().err
    shown = curves(tmp_path / "run")
    assert list(shown["val/gym/success"].values()) == [0.0]
    assert next(iter(shown["val/gym/success_high"].values())) == pytest.approx(0.793, abs=1e-3)


def test_held_out_episodes_are_not_trained_on(
    dataset_root: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = ["--steps=6", "--save_freq=0", "--val_split=0.5"]
    for name, freq in (("often", 2), ("never", 7)):
        words = [*held_out, f"--eval_freq={freq}", f"--run_name={name}"]
        assert command(*flags(dataset_root, tmp_path, *words)) == 0
    assert weights(tmp_path / "often") == weights(tmp_path / "never")
    assert weights(tmp_path / "often") != weights(trained)
    said = capsys.readouterr().err
    told = re.findall(r"on (\d+) frames of 1 episode, (\d+) frames of 1 episode held out,", said)
    assert [int(train) + int(held) for train, held in told] == [24, 24]
    lines = [line for line in said.splitlines() if "validation" in line]
    assert [line.split(":")[0] for line in lines] == [
        f"validation at step {step}" for step in (2, 4, 6)
    ]
    assert len(curves(tmp_path / "often")["val/loss"]) == 3
    meta = trained_on(tmp_path / "often/checkpoints/000006/pretrained_model")
    assert dataset_name(meta) == "dataset"
    assert [is_among(name, meta) for name in "abc"] == [True, False, False]
    # What was held out stays so, also in a run of a version that did not note it down.
    file = tmp_path / "never/config.yaml"
    settings = yaml.safe_load(file.read_text())
    assert settings["provenance"]["dataset"].pop("held_out") == [1]
    file.write_text(yaml.safe_dump(settings))
    again = [*held_out, "--run_name=never", "--resume=True", "--steps=7"]
    assert command(*flags(dataset_root, tmp_path, *again)) == 0
    settings["provenance"]["dataset"]["held_out"] = [0]
    file.write_text(yaml.safe_dump(settings))
    again[-1] = "--steps=8"
    capsys.readouterr()
    error = refused(capsys, 1, *flags(dataset_root, tmp_path, *again))
    assert "--val_split=0.5 held out episodes [0] and holds out [1] now" in error


def test_two_small_batches_make_the_step_of_a_large_one(
    dataset_root: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nearly: a batch's loss is the mean over what is no padding in it."""
    plain = ["--steps=6", "--save_freq=0", "--policy.dropout=0", "--log_freq=1"]
    halves = ["--batch_size=4", "--accumulate=2"]
    for name, more in (("whole", []), ("halves", halves)):
        words = [*plain, *more, f"--run_name={name}"]
        assert command(*flags(dataset_root, tmp_path, *words)) == 0
    capsys.readouterr()
    whole, parts = (curves(tmp_path / name)["train/loss_mean"] for name in ("whole", "halves"))
    assert list(parts) == list(whole) == [1, 2, 3, 4, 5, 6]
    assert list(parts.values()) == pytest.approx(list(whole.values()), rel=0.02)


def test_bfloat16(dataset_root: Path, tmp_path: Path) -> None:
    # In bfloat16 other values are dropped.
    more = ["--steps=6", "--save_freq=0", "--policy.dropout=0"]
    assert command(*flags(dataset_root, tmp_path / "full", *more)) == 0
    half = [*more, "--precision=bf16-mixed"]
    assert command(*flags(dataset_root, tmp_path / "half", *half)) == 0
    runs = (tmp_path / name / "run" for name in ("half", "full"))
    here, there = (curves(run)["train/loss_mean"] for run in runs)
    assert here != there
    assert list(here.values()) == pytest.approx(list(there.values()), rel=0.02)


def test_half_precision_needs_a_gpu(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, 2, *flags(dataset_root, tmp_path, "--precision=16-mixed"))
    assert "needs a GPU" in error
    assert not (tmp_path / "run").exists()


def test_wandb_offline(dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What WandB wrote is read back by WandB's own reader."""
    # By name: their stubs are missing or say less than there is.
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    store: Any = import_module("wandb.sdk.internal.datastore").DataStore()
    monkeypatch.setenv("WANDB_SILENT", "true")
    more = ["--steps=2", "--save_freq=0", "--wandb=offline"]
    assert command(*flags(dataset_root, tmp_path, *more)) == 0
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    store.open_for_scan(str(file))
    config: dict[str, Any] = {}
    logged: dict[str, float] = {}
    for data in iter(store.scan_data, None):
        record = messages.Record()
        record.ParseFromString(data)
        for item in (*record.run.config.update, *record.config.update):
            config["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        for item in record.history.item:
            logged["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    store.close()
    assert config["policy"]["dim_model"] == 16
    assert config["batch_size"] == 8
    assert logged["train/loss_mean"] > 0


def elsewhere(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *PROG.split()[1:], *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.e2e
def test_two_devices_make_the_step_of_a_large_batch(dataset_root: Path, tmp_path: Path) -> None:
    plain = ["--steps=4", "--save_freq=2", "--policy.dropout=0", "--log_freq=1"]
    both = [*flags(dataset_root, tmp_path, *plain), "--batch_size=4", "--devices=2"]
    ended = elsewhere(*both)
    assert ended.returncode == 0, ended.stderr
    assert len(log_lines(ended.stderr)) == 4  # one process speaks
    assert command(*flags(dataset_root, tmp_path, *plain, "--run_name=one")) == 0
    one = curves(tmp_path / "one")["train/grad_norm"]
    assert list(curves(tmp_path / "run")["train/grad_norm"].values()) == pytest.approx(
        list(one.values()), rel=0.15
    )
    saved = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/000004")
    ended = elsewhere("--run_name=run", f"--output_dir={tmp_path}", "--resume=True")
    assert ended.returncode == 0, ended.stderr
    assert weights(tmp_path / "run") == saved


@pytest.mark.e2e
def test_torchrun_on_two_machines_trains_one_run(dataset_root: Path, tmp_path: Path) -> None:
    """Two launchers on this machine, as one on each of two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = flags(dataset_root, tmp_path, "--steps=4", "--save_freq=2", "--batch_size=4")
    words.append("--policy.dropout=0")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def start(node: int, *more: str) -> "subprocess.Popen[str]":
        launcher = ["-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}"]
        launcher += ["--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
        line = [sys.executable, *launcher, *PROG.split()[1:], *words, *more]
        return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)

    ended = [start(node) for node in (0, 1)]
    said = [process.communicate(timeout=500)[1] for process in ended]
    assert [process.returncode for process in ended] == [0, 0], said
    assert not any("Traceback" in text for text in said)
    assert "frames of 2 episodes" in said[0]
    assert "trained 4 steps" in said[0]
    assert "frames of" not in said[1]
    # Each step is one of a batch twice as large.
    plain = [*words, "--batch_size=8", "--run_name=one", "--devices=1"]
    assert command(*plain) == 0
    one, both = (curves(tmp_path / run)["train/grad_norm"] for run in ("one", "run"))
    assert list(both.values()) == pytest.approx(list(one.values()), rel=0.2)
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["000002", "000004", "last"]


@pytest.mark.e2e
def test_compiled(dataset_root: Path, trained: Path, tmp_path: Path) -> None:
    """The weights have the names that they always have, and the losses are as large."""
    from safetensors import safe_open

    ended = elsewhere(
        *flags(dataset_root, tmp_path, "--steps=6", "--save_freq=0", "--compile=True")
    )
    assert ended.returncode == 0, ended.stderr
    assert "Graph break" not in ended.stderr
    names = []
    for run in (tmp_path / "run", trained):
        file = run / "checkpoints/last/pretrained_model/model.safetensors"
        with safe_open(file, "pt") as tensors:
            names.append(set(tensors.keys()))
    assert names[0] == names[1]
    here, there = (curves(run)["train/loss_mean"] for run in (tmp_path / "run", trained))
    assert list(here.values()) == pytest.approx(list(there.values()), rel=0.1)
