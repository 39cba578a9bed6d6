"""One checkpoint with examples, and both of its exports, made once by ``auto``."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.backends import examples
from positronic.vendors.lerobot.serving.backends.base import Backend
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint
from positronic.vendors.lerobot.serving.choosing import choose_backend
from tests.positronic.vendors.lerobot.small_policy import make_run, observation

CODEC = codecs.eepose_absolute(image_size=(48, 64))
INPUTS = ("observation.state", "observation.images.left", "observation.images.side")


def encoded(*seeds: int) -> dict[str, NDArray[Any]]:
    rows = [CODEC.encode(observation(seed)) for seed in seeds]
    return {key: np.stack([row[key] for row in rows]) for key in INPUTS}


def choose(
    checkpoint: Checkpoint, eager: TorchBackend, **options: Any
) -> tuple[Backend, list[str]]:
    """The backend, and what was said meanwhile."""
    said: list[str] = []
    chosen = choose_backend(checkpoint, checkpoint.verify(), eager, **options, say=said.append)
    return chosen, said


@dataclass
class Exported:
    checkpoint: Checkpoint
    eager: TorchBackend
    chosen: Backend
    said: list[str]


@pytest.fixture(scope="package")  # runtimes with all their graphs, of no use to other tests
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    run = make_run(tmp_path_factory.mktemp("exported") / "run", CODEC, (10000,))
    checkpoint = CheckpointDirectory(run).checkpoint("010000")
    save_file(encoded(10, 11, 12, 13), checkpoint.path / examples.FILE_NAME)
    eager = TorchBackend(checkpoint, "cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("positronic.vendors.lerobot.serving.backends.selection.FAST_S", 0.0)
        chosen, said = choose(checkpoint, eager, backend="auto")
    return Exported(checkpoint, eager, chosen, said)


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Checkpoint:
    """The checkpoint with its exports, to be changed."""
    root = exported.checkpoint.path.parents[2]
    shutil.copytree(root, tmp_path / "run")
    return CheckpointDirectory(tmp_path / "run").checkpoint("010000")


@pytest.fixture
def not_made_again(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Counts what would be exported, and lets it fail."""
    asked: list[str] = []

    def refuse(self: Any, place: Path, backend: str, precision: str) -> None:
        asked.append(backend)
        raise RuntimeError("no export in this test\nand no second line")

    monkeypatch.setattr(
        "positronic.vendors.lerobot.serving.backends.export_cache.ExportCache._export", refuse
    )
    return lambda: asked
