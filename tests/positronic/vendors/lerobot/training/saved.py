"""Checkpoints for tests of where they go: as sealed as real ones, and small."""

import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from foundation.manifest import seal


def save(run_path: Path, step: int, content: str = "weights") -> Path:
    """Write what stands for a checkpoint of ``step``, as training does."""
    final = run_path / "checkpoints" / f"{step:06d}"
    unfinished = final.with_name(f".unfinished-{final.name}")
    (unfinished / "pretrained_model").mkdir(parents=True)
    numbers = np.frombuffer(f"{content} of {step}".encode() * 99, np.uint8)
    save_file({"bytes": numbers}, unfinished / "pretrained_model/model.safetensors")
    (unfinished / "training_state").mkdir()
    (unfinished / "training_state/training_step.json").write_text(f'{{"step": {step}}}')
    seal(unfinished)
    os.rename(unfinished, final)
    last = final.with_name("last")
    last.unlink(missing_ok=True)
    last.symlink_to(final.name)
    return final


def weights(checkpoint: Path) -> Path:
    return checkpoint / "pretrained_model/model.safetensors"


def damage(checkpoint: Path) -> None:
    """Change a byte, and no size."""
    path = weights(checkpoint)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
