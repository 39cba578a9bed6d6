"""Checkpoints made to do harm, through everything that loads one: a line each, and nothing done."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer as LightningsTrainer

from foundation.errors import FoundationError
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import ACT, LeRobotPolicy
from getiaction.train import Trainer
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint

PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
CANARY = "canary_of_a_checkpoint"

type Harm = Callable[[Path], None]


def small() -> LeRobotPolicy:
    shapes = {"observation.state": 5, "observation.environment_state": 3, "action": 6}
    kinds = dict(zip(shapes, ("STATE", "ENV", "ACTION"), strict=True))
    features = {key: {"type": kinds[key], "shape": (n,)} for key, n in shapes.items()}
    stats = {
        key: {name: torch.rand(n) + 1 for name in ("mean", "std", "min", "max")}
        for key, n in shapes.items()
    }
    return LeRobotPolicy(
        "act",
        input_features=features,
        output_features=features,
        dataset_stats=stats,
        chunk_size=4,
        dim_model=16,
        n_heads=2,
        dim_feedforward=16,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        latent_dim=4,
        pretrained_backbone_weights=None,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pretrained_model`` and ``policy.ckpt`` of one small policy."""
    folder = tmp_path_factory.mktemp("saved")
    policy = small()
    policy.save_pretrained(folder / "pretrained_model")
    checkpoint: dict[str, Any] = {"state_dict": policy.state_dict()}
    policy.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "policy.ckpt")
    return folder


@pytest.fixture
def place(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to be changed, beside a module that tells by a file that it was imported."""
    shutil.copytree(saved, tmp_path / "run" / "here")
    canary = tmp_path / "run" / f"{CANARY}.py"
    canary.write_text(f"open({str(tmp_path / 'run' / 'imported')!r}, 'w')\nclass Step: pass\n")
    monkeypatch.syspath_prepend(str(canary.parent))
    monkeypatch.chdir(canary.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path / "run" / "here"


def tree(place: Path) -> dict[str, tuple[int, int]]:
    """Every file around a checkpoint, with its size and time."""
    root = place.parents[1]
    return {
        str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
    }


def edited(name: str, **fields: Any) -> Harm:
    def change(place: Path) -> None:
        file = place / "pretrained_model" / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def stepped(name: str, **fields: Any) -> Harm:
    def change(place: Path) -> None:
        file = place / "pretrained_model" / name
        document = json.loads(file.read_text())
        document["steps"].append(fields)
        file.write_text(json.dumps(document))

    return change


def replaced(name: str, content: bytes) -> Harm:
    def change(place: Path) -> None:
        (place / "pretrained_model" / name).write_bytes(content)

    return change


def pipe(name: str) -> Harm:
    def change(place: Path) -> None:
        (place / "pretrained_model" / name).unlink()
        os.mkfifo(place / "pretrained_model" / name)

    return change


def restated(state_file: str) -> Harm:
    def change(place: Path) -> None:
        file = place / "pretrained_model" / PRE
        document = json.loads(file.read_text())
        for step in document["steps"]:
            if "state_file" in step:
                shutil.copy(file.parent / step["state_file"], place.parent / "x.safetensors")
                step["state_file"] = state_file.format(place.parent)
        file.write_text(json.dumps(document))

    return change


TOUCH = {"args": ["touch", "executed"]}
DIRECTORIES: dict[str, Harm] = {
    "popen": stepped(PRE, **{"class": "subprocess.Popen", "config": TOUCH}),
    "popen after": stepped(POST, **{"class": "subprocess.Popen", "config": TOUCH}),
    "module beside it": stepped(PRE, **{"class": f"{CANARY}.Step"}),
    "name and class": stepped(
        PRE, **{"registry_name": "to_batch_processor", "class": f"{CANARY}.Step"}
    ),
    "unknown step": stepped(PRE, registry_name=CANARY),
    "tokenizer beside it": stepped(
        PRE, registry_name="tokenizer_processor", config={"tokenizer_name": "./here"}
    ),
    "code of a tokenizer": stepped(
        PRE, registry_name="action_tokenizer_processor", config={"action_tokenizer_name": "./here"}
    ),
    "policy of a step": stepped(
        PRE, registry_name="reward_classifier_processor", config={"pretrained_path": "./here"}
    ),
    "state above": restated("../x.safetensors"),
    "state anywhere": restated("{}/x.safetensors"),
    "state of the machine": restated("../../../../../../etc/hostname"),
    "remote code": edited("config.json", type="gaussian_actor", vision_encoder_name="./here"),
    "remote tokenizer": edited("config.json", type="pi0_fast", action_tokenizer_name="./here"),
    "plugin": edited("config.json", type=CANARY),
    "adapter": edited("config.json", use_peft=True),
    "adapter beside it": replaced("adapter_config.json", b"{}"),
    "type of types": edited("config.json", type={"class": "os.system"}),
    "no chunk": edited("config.json", n_action_steps=0),
    "feature of no size": edited(
        "config.json", input_features={"observation.state": {"type": "STATE", "shape": [-1]}}
    ),
    "backbone": edited("config.json", vision_backbone="alexnet"),
    "activation": edited("config.json", feedforward_activation=f"{CANARY}.Step"),
    "unknown field": edited("config.json", **{CANARY: "Step"}),
    "other network": edited("config.json", dim_model=32),
    "deep config": replaced("config.json", b"[" * 100_000),
    "deep processor": replaced(PRE, b'{"steps":' * 100_000),
    "pickled weights": replaced("model.safetensors", pickle.dumps({"weight": 1})),
    "no weights": replaced("model.safetensors", b""),
    "piped config": pipe("config.json"),
    "piped processor": pipe(PRE),
    "piped state": pipe("policy_preprocessor_step_3_normalizer_processor.safetensors"),
}


@pytest.mark.parametrize("harm", DIRECTORIES.values(), ids=DIRECTORIES)
def test_a_directory_ends_in_a_line_and_does_nothing(place: Path, harm: Harm) -> None:
    harm(place)
    before = tree(place)
    folder = place / "pretrained_model"
    with pytest.raises(FoundationError) as refused:
        LeRobotPolicy.from_pretrained(folder)
    assert "\n" not in str(refused.value)
    checkpoint = Checkpoint(folder, "000010", "run")
    with pytest.raises(CheckpointError, match="checkpoint run/checkpoints/000010") as served:
        TorchBackend(checkpoint, "cpu")
    assert "\n" not in str(served.value)
    assert str(place) not in str(served.value)
    assert tree(place) == before
    assert CANARY not in sys.modules


def test_where_a_config_says_it_came_from_is_not_looked_at(place: Path) -> None:
    edited("config.json", pretrained_path="./elsewhere")(place)
    policy = LeRobotPolicy.from_pretrained(place / "pretrained_model")
    assert policy.config.pretrained_path is None
    assert TorchBackend(Checkpoint(place / "pretrained_model", "1", "run"), "cpu")


def entry(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda checkpoint: change(checkpoint["getiaction"])


class Executed:
    def __reduce__(self) -> Any:
        return subprocess.call, (["touch", "executed"],)


def before(**step: Any) -> Callable[[dict[str, Any]], Any]:
    return entry(lambda kept: kept["preprocessor"]["config"]["steps"].append(step))


def renamed(name: str) -> Callable[[dict[str, Any]], Any]:
    def change(kept: dict[str, Any]) -> None:
        state = kept["postprocessor"]["state"]
        state[name] = state.pop(next(iter(state)))

    return entry(change)


def deep(kept: dict[str, Any]) -> None:
    nested: list[Any] = []
    for _ in range(500):
        nested = [nested]
    kept["config"]["tags"] = nested


ARCHIVES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "popen": before(**{"class": "subprocess.Popen", "config": TOUCH}),
    "module beside it": before(**{"class": f"{CANARY}.Step"}),
    "unknown step": before(registry_name=CANARY),
    "state above": renamed("../../../run/escaped"),
    "state anywhere": renamed("/tmp/escaped"),
    "state in a folder": renamed("folder/escaped"),
    "pickled object": lambda checkpoint: checkpoint.update(extra=Executed()),
    "remote code": entry(lambda kept: kept["config"].update(type="gaussian_actor")),
    "plugin": entry(lambda kept: kept["config"].update(type=CANARY)),
    "unknown optimizer": entry(lambda kept: kept["optimizer"].update(type=f"{CANARY}.Step")),
    "no optimizer": entry(lambda kept: kept.update(optimizer={})),
    "unknown schedule": entry(lambda kept: kept.update(scheduler={"type": CANARY})),
    "no entry": lambda checkpoint: checkpoint.update(getiaction=[]),
    "counters": entry(lambda kept: kept.update(counters={"a": "b"})),
    "deep": entry(deep),
    "no weights": lambda checkpoint: checkpoint.pop("state_dict"),
    "other weights": lambda checkpoint: checkpoint.update(state_dict={"a": "b"}),
    "state of no tensors": entry(lambda kept: kept["preprocessor"]["state"].update(a={"b": "c"})),
}


@pytest.mark.parametrize("harm", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_ends_in_a_line_and_does_nothing(
    place: Path, harm: Callable[[dict[str, Any]], Any]
) -> None:
    checkpoint = torch.load(place / "policy.ckpt", weights_only=True)
    harm(checkpoint)
    torch.save(checkpoint, place / "policy.ckpt")
    around = tree(place)
    with pytest.raises(FoundationError) as refused:
        LeRobotPolicy.from_pretrained(place / "policy.ckpt")
    assert "\n" not in str(refused.value)
    assert tree(place) == around
    assert CANARY not in sys.modules


def test_an_archive_that_is_a_pipe_is_not_waited_for(place: Path) -> None:
    (place / "policy.ckpt").unlink()
    os.mkfifo(place / "policy.ckpt")
    with pytest.raises(FoundationError, match="not a regular file"):
        ACT.load_from_checkpoint(place / "policy.ckpt")


def test_nobody_asks_for_code_of_an_archive(place: Path) -> None:
    with pytest.raises(FoundationError, match="would run code"):
        ACT.load_from_checkpoint(place / "policy.ckpt", weights_only=False)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(("given", "read"), [({}, True), ({"weights_only": None}, True)])
def test_a_trainer_reads_checkpoints_as_data(
    command: str, given: dict[str, Any], read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning runs what one from ``http://`` contains, unless it is told not to."""
    asked: list[Any] = []

    def noted(self: Any, *args: Any, weights_only: Any = None, **kwargs: Any) -> None:
        asked.append(weights_only)
        raise GetiactionError("enough")

    monkeypatch.setattr(LightningsTrainer, command, noted)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(FoundationError, match="enough"):
        getattr(trainer, command)(ckpt_path="http://127.0.0.1:9/policy.ckpt", **given)
    assert asked == [read]


def test_a_command_takes_no_class_from_an_archive(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from getiaction.cli import main

    checkpoint = torch.load(place / "policy.ckpt", weights_only=True)
    checkpoint["hyper_parameters"] = {"_class_path": f"{CANARY}.Step"}
    torch.save(checkpoint, place / "policy.ckpt")
    around = tree(place)
    words = ["test", "--model=ACT", "--data=LeRobotDataModule", "--data.root=none"]
    assert main([*words, f"--ckpt_path={place / 'policy.ckpt'}"]) != 0
    assert CANARY not in capsys.readouterr().err
    assert CANARY not in sys.modules
    assert {name for name in tree(place) if "experiments" not in name} == set(around)
