"""Settings and run directories that somebody else made: nothing is imported, nothing led astray."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from foundation.errors import FoundationError, UsageError
from foundation.manifest import seal
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.train import train
from positronic.vendors.lerobot.training import config_file, same_run
from positronic.vendors.lerobot.training.remote_run import run_directory
from tests.mutations import mutations
from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.positronic.vendors.lerobot.training.saved import save
from tests.positronic.vendors.lerobot.training.training_commands import command, flags, refused

# Not imported by anything; importing it would be seen.
PLANTED = "planted_by_a_config"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path that leaves a file behind when it is imported."""
    folder = tmp_path / "path"
    folder.mkdir()
    mark = tmp_path / "imported"
    (folder / f"{PLANTED}.py").write_text(f"open({str(mark)!r}, 'w').close()\nname = 1\n")
    monkeypatch.syspath_prepend(str(folder))
    return mark


NAMING = [
    "policy: '@planted_by_a_config.name'",
    "policy: '....planted_by_a_config.name'",
    "policy: {type: act, vision_backbone: '@planted_by_a_config.name'}",
    "policy: {type: act, normalization_mapping: {VISUAL: '@planted_by_a_config.name'}}",
    "policy: {type: act, dim_model: '@planted_by_a_config.name'}",
    "codec: '@planted_by_a_config.name'",
    "codec: .planted_by_a_config.name",
    "run_name: '@planted_by_a_config.name'",
    "steps: '@planted_by_a_config.name'",
    "output_dir: '@@planted_by_a_config.name'",
    "dataset_root: ['@planted_by_a_config.name']",
    "eval_env: 'planted_by_a_config:Env/Name-v0'",
    "policy: '@positronic.vendors.lerobot.training.presets.inspect.os.system'",
    "codec: '@positronic.vendors.lerobot.codecs.cfn.Config'",
]


@pytest.mark.parametrize("text", NAMING)
def test_a_file_imports_nothing(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    error = refused(capsys, 2, f"--config={file}", "--config=print")
    assert str(file) in error
    assert PLANTED not in sys.modules
    assert not planted.exists()


@pytest.mark.parametrize(
    "text",
    [
        "policy: .act_state",
        "policy: '@positronic.vendors.lerobot.training.presets.act_state'",
        "codec: '@positronic.vendors.lerobot.codecs.eepose_state'",
        "output_dir: ./runs",
        "output_dir: ../runs",
    ],
)
def test_a_file_names_what_the_command_line_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert command(f"--config={file}", "--config=print") == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    if "codec" in text:
        assert settings["codec"]["name"] == "eepose_state"
    if "policy" in text:
        assert settings["policy"]["dim_model"] == 128


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"{a: " * 100_000,
        b"\xff\xfe\x00",
        b"policy: &a [*a]",
        b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"\n".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]".encode()
            for n in range(9)
        ),
        b"steps: " + b"9" * 10_000,
        b"steps: .nan",
        b"? [a, b]\n: 1",
        b"!!python/object/apply:os.system ['true']",
        b"steps: 2001-01-01",
        b"policy: {type: [act]}",
        b"# " + b"x" * (2 << 20),
        b"7: 8",
    ],
)
def test_files_that_are_no_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    error = refused(capsys, 2, f"--config={file}", "--config=print")
    assert len(error) < 500 + len(str(file))


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    assert "is not a regular file" in refused(
        capsys, 2, f"--config={tmp_path}/config.yaml", "--config=print"
    )


SETTINGS: dict[str, Any] = {
    "steps": 4,
    "val_split": 0.5,
    "wandb": "off",
    "policy": {"type": "act", "dim_model": 16, "use_vae": False},
    "provenance": {"dataset": {"held_out": [1]}, "starts": [{"step": 0}]},
}


# YAML is read by Python alone, and slowly.
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.e2e)])
def test_mutations_of_settings(count: int) -> None:
    """Through YAML, of which JSON is a part; only the command's own errors come out."""
    said = []
    for content in mutations(SETTINGS, count, seed=7):
        try:
            found = config_file.READER.parse_yaml(content, dict[str, Any], "config.yaml")
            config_file.apply(train, found, "config.yaml")
            same_run.READER.validate(found, same_run.RunConfig, "config.yaml")
        except FoundationError as error:
            said.append(str(error))
    assert len(said) > count // 2
    assert max(map(len, said)) < 1000
    assert not any("\n" in line for line in said)


TRAIN_CONFIG: dict[str, Any] = {
    "policy": {"type": "act", "dim_model": 16, "use_vae": False},
    "batch_size": 8,
    "seed": 1000,
    "dataset": {"repo_id": "local", "eval_split": 0.0},
}


def test_mutations_of_lerobots_record() -> None:
    said = []
    for content in mutations(TRAIN_CONFIG, 10_000, seed=8):
        try:
            same_run.READER.parse_json(content, same_run.TrainConfig, "train_config.json")
        except CheckpointError as error:
            said.append(str(error))
    assert len(said) > 3_000
    assert max(map(len, said)) < 1000


# --- run directories ---


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("train") / "dataset")


@pytest.fixture(scope="module")
def trained(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("trained")
    assert command(*flags(dataset_root, output_dir, "--steps=4", "--save_freq=2")) == 0
    return output_dir / "run"


def seen(root: Path) -> dict[str, bytes | str]:
    """Everything in a directory, links as what they lead to."""
    return {
        str(path.relative_to(root)): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else "")
        for path in sorted(root.rglob("*"))
    }


def in_config(**settings: Any) -> Callable[[Path, Path], None]:
    def damage(run: Path, outside: Path) -> None:
        file = run / "config.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))

    return damage


def in_policy(**fields: Any) -> Callable[[Path, Path], None]:
    def damage(run: Path, outside: Path) -> None:
        file = run / "config.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["policy"] |= fields
        file.write_text(yaml.safe_dump(settings))

    return damage


def linked(name: str) -> Callable[[Path, Path], None]:
    def damage(run: Path, outside: Path) -> None:
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        else:
            (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(outside)

    return damage


def lock_led_away(run: Path, outside: Path) -> None:
    (run / ".lock").unlink(missing_ok=True)
    (run / ".lock").symlink_to(outside / "precious")


def record(content: bytes) -> Callable[[Path, Path], None]:
    def damage(run: Path, outside: Path) -> None:
        newest = run / "checkpoints/000004"
        (newest / "pretrained_model/train_config.json").write_bytes(content)
        seal(newest)

    return damage


def manifest_leads_out(run: Path, outside: Path) -> None:
    for name in ("000002", "000004"):
        file = run / f"checkpoints/{name}/manifest.json"
        document = json.loads(file.read_text())
        document["files"]["../../../../precious"] = {"size": 1, "sha256": "0" * 64}
        file.write_text(json.dumps(document))


MALICIOUS: dict[str, Callable[[Path, Path], None]] = {
    "policy named": in_config(policy="@planted_by_a_config.name"),
    "codec named": in_config(codec="@planted_by_a_config.name"),
    "environment named": in_config(eval_env="planted_by_a_config:Env/Name-v0"),
    "field named": in_policy(vision_backbone="@planted_by_a_config.name"),
    "deep provenance": in_config(provenance=json.loads("[" * 300 + "]" * 300)),
    "provenance of another type": in_config(provenance={"starts": 7}),
    "checkpoints led away": linked("checkpoints"),
    "curves led away": linked("tensorboard"),
    "lock led away": lock_led_away,
    "record nested": record(b'{"policy":' * 50_000),
    "record of another type": record(b'{"policy": [1]}'),
    "record of nothing": record(b"\x00"),
    "manifests lead out": manifest_leads_out,
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_run_of_somebody_else_ends_in_one_line(
    name: str,
    planted: Path,
    trained: Path,
    dataset_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (outside / ".unfinished-7").write_text("somebody's own")
    output_dir = tmp_path / "runs"
    run = shutil.copytree(trained, output_dir / "run", symlinks=True)
    MALICIOUS[name](run, outside)
    around = {
        path: content for path, content in seen(tmp_path).items() if not path.startswith("runs/run")
    }
    capsys.readouterr()
    words = (f"--dataset_root={dataset_root}", f"--output_dir={output_dir}", "--run_name=run")
    assert command(*words, "--resume=True", "--steps=5") in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert "error: " in lines[-1]
    assert not any("Traceback" in line or "this is a bug" in line for line in lines)
    assert max(map(len, lines)) < 1000 + 10 * len(str(tmp_path))
    assert not planted.exists()
    assert {
        path: content for path, content in seen(tmp_path).items() if not path.startswith("runs/run")
    } == around


# --- numbers that are not finite ---


def spoil(checkpoint: Path, name: str) -> None:
    """What older versions have published: NaN, and a manifest that says so."""
    file = checkpoint / name
    tensors = {key: value.copy() for key, value in load_file(file).items()}
    key = max(tensors, key=lambda k: tensors[k].size)
    tensors[key].flat[-1] = np.nan
    save_file(tensors, file)
    seal(checkpoint)


@pytest.mark.parametrize(
    "name", ["pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"]
)
def test_resume_finds_the_newest_good_one(
    trained: Path,
    dataset_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)
    spoil(run / "checkpoints/000004", name)
    words = flags(dataset_root, tmp_path, "--steps=4", "--save_freq=2", "--resume=True")
    assert command(*words) == 0
    said = capsys.readouterr().err
    assert f"passing over {run}/checkpoints/000004: {name} holds NaN or infinities" in said
    weights = "checkpoints/last/pretrained_model/model.safetensors"
    assert (run / weights).read_bytes() == (trained / weights).read_bytes()


def test_a_run_that_diverges_ends_with_its_last_good_checkpoint(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = ["--policy.optimizer_lr=1e30", "--policy.optimizer_lr_backbone=1e30"]
    words = ["--steps=9", "--save_freq=1", "--log_freq=100", *rates]
    assert command(*flags(dataset_root, tmp_path, *words)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is NaN or infinite: training has diverged" in error
    assert "lower the learning rate" in error
    checkpoints = tmp_path / "run/checkpoints"
    names = sorted(path.name for path in checkpoints.iterdir() if not path.is_symlink())
    assert names
    assert (checkpoints / "last").resolve().name == names[-1]
    assert str((checkpoints / "last").resolve()) in error
    with run_directory(str(tmp_path), "run") as run:
        assert run.newest() == checkpoints / names[-1]


def test_weights_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    with run_directory(str(tmp_path), "run") as run:
        run.begin()
        for step in (1, 2):
            save(run.path, step)
        newest = run.path / "checkpoints/000002"
        (newest / "pretrained_model/model.safetensors").write_bytes(b"\xff" * 64)
        seal(newest)
        assert run.newest() == run.path / "checkpoints/000001"


def test_a_foreign_key_is_quoted_printably() -> None:
    with pytest.raises(UsageError) as error:
        config_file.apply(train, {"\x1b]0;x\x07" * 500: 1}, "config.yaml")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400
