"""The training command in this process, with a policy that costs nothing."""

import re
import warnings
from pathlib import Path

import pytest

from positronic.vendors.lerobot.train import PROG, status

TINY = [
    "--policy=.act_state",
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=32",
    "--policy.chunk_size=6",
    "--policy.n_action_steps=4",
    "--policy.warmup_steps=2",
    "--steps=1",  # a refusal that is missed should not train for long
    "--batch_size=8",
    "--log_freq=2",
    "--device=cpu",
]
CODEC = "--codec=@positronic.vendors.lerobot.codecs"


def command(*words: object) -> int:
    """Run the command line in this process; it sets up warnings for itself."""
    with warnings.catch_warnings():
        return status([str(word) for word in words])


def flags(dataset_root: Path, output_dir: Path, *more: str) -> list[str]:
    return [
        f"--dataset_root={dataset_root}",
        "--run_name=run",
        f"--output_dir={output_dir}",
        *TINY,
        *more,
    ]


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    """The one line with which it refuses, at once or when torch has been loaded."""
    assert command(*words) == code
    error = re.sub(r"^training .*: loading PyTorch .*\n", "", capsys.readouterr().err)
    assert error.startswith(f"{PROG}: error: ")
    assert error.count("\n") == 1
    return error


def log_lines(text: str) -> list[str]:
    """Lines of the log without their timings."""
    return [
        line.split("samples/s")[0].rsplit("  ", 1)[0]
        for line in text.splitlines()
        if line.startswith("step ")
    ]


def weights(run_dir: Path) -> bytes:
    return (run_dir / "checkpoints/last/pretrained_model/model.safetensors").read_bytes()
