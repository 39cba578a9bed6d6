"""The work of one conversion worker: light to start, and the same bytes wherever it is done."""

import sys
from pathlib import Path

import pytest

from foundation.worker_pool import worker_pool
from positronic.dataset import LocalDataset
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion.encode_episode import Recipe
from positronic.vendors.lerobot.conversion.encoders import ENCODERS, VCODECS
from positronic.vendors.lerobot.conversion.workers import encoding
from tests.positronic.vendors.lerobot.raw import FPS, record

HEAVY = ("torch", "lerobot", "pandas", "scipy", "datasets", "boto3", "mujoco", "lightning", "tqdm")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    for index, steps in enumerate((12, 5)):
        record(root, index, steps=steps)
    return root


def _encode(raw: Path, vcodec: str, output: Path) -> dict[str, bytes]:
    """Encode in this process; the files of every episode by name."""
    output.mkdir()
    recipe = Recipe(codecs.eepose_absolute(image_size=(64, 64)), FPS, ENCODERS[vcodec])
    with encoding(LocalDataset(raw), recipe, output, workers=0) as outcomes:
        assert all(isinstance(outcome, Path) for outcome in outcomes)
    files = [path for path in output.rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def _encode_as_worker(raw: Path, output: Path) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    files = {vcodec: _encode(raw, vcodec, output / vcodec) for vcodec in VCODECS}
    return files, [name for name in HEAVY if name in sys.modules]


def _nothing() -> None:
    pass


def test_a_worker_starts_light_and_encodes_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    with worker_pool(1, _nothing) as pool:
        there, heavy = pool.submit(_encode_as_worker, raw, tmp_path / "worker").result(240)
    assert heavy == []
    for vcodec in VCODECS:
        here = _encode(raw, vcodec, tmp_path / vcodec)
        assert sum(name.endswith(".mp4") for name in here) == 4
        assert there[vcodec] == here
