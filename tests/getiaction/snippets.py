"""Code blocks of documents, run as they are written in a world where everything is small."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer as LightningsTrainer

from getiaction import trainers
from getiaction.gyms import PushTGym
from getiaction.policies.lerobot import configs, universal

# Networks that two cores train in seconds, wherever a text leaves LeRobot's default.
SMALL_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "act": {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1},
    "diffusion": {"down_dims": (16, 32, 64), "num_inference_steps": 2},
    "vqbet": {"gpt_hidden_dim": 32, "gpt_n_layer": 1, "n_vqvae_training_steps": 1},
    "tdmpc": {"mlp_dim": 32},
}
SMALL_TRAINER: Mapping[str, Any] = {
    "accelerator": "cpu",
    "max_steps": 2,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "log_every_n_steps": 1,
}
ONE_NATIVE_STEP = 'steps=1, batch_size=4, num_workers=0, device="cpu"'
SMALL_NUMBERS = {
    r"(batch_size[=:] ?)\d+": r"\g<1>4",
    r"(num_rollouts_\w+=)\d+": r"\g<1>1",
    r"(n_episodes=)\d+": r"\g<1>2",
    r"(devices=)\d+": r"\g<1>1",
    r"(num_workers=)\d+": r"\g<1>0",
    r"(dim_model=)\d+": r"\g<1>32",
    r"(hidden_dim\"?[=:] ?)\d+": r"\g<1>32",
    r"\[512, 1024, 2048\]": "[16, 32, 64]",
    r"LeRobotTrainer\((max_epochs=\d+)?\)": f"LeRobotTrainer({ONE_NATIVE_STEP})",
}


def code_blocks(path: Path) -> list[tuple[str, str]]:
    """The code blocks of a document: language and code."""
    return re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def blocks(path: Path) -> dict[str, str]:
    """The code of a document by the numbers of its blocks."""
    return {str(i): code for i, (_, code) in enumerate(code_blocks(path))}


def smaller(code: str) -> str:
    """The same code with numbers that two cores can do."""
    for pattern, replacement in SMALL_NUMBERS.items():
        code = re.sub(pattern, replacement, code)
    return code


def run(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run Python, with ``names`` being what the text around it has spoken of; return all names."""
    exec(compile(smaller(code), "<document>", "exec"), names)
    return names


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make networks, runs and episodes small where the code does not say how large they are."""
    original = configs.policy_config

    def policy_config(policy_name: str, fields: Mapping[str, Any] | None = None) -> Any:
        given = dict(fields or {})
        small = dict(SMALL_FIELDS.get(policy_name, {}))
        if "hidden_dim" in given:
            del small["dim_model"]
        return original(policy_name, {**small, **given})

    monkeypatch.setattr(universal, "policy_config", policy_config)
    monkeypatch.setattr(trainers, "policy_config", policy_config)
    initialise: Any = LightningsTrainer.__init__

    @functools.wraps(initialise)
    def __init__(self: Any, **given: Any) -> None:
        initialise(self, **{**SMALL_TRAINER, **given})

    monkeypatch.setattr(LightningsTrainer, "__init__", __init__)
    monkeypatch.setitem(PushTGym.__init__.__kwdefaults__ or {}, "max_episode_steps", 5)
