"""Where exports are kept, and which of them are used."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.manifest import faults, seal
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.serving.backends.export_cache import (
    KEPT,
    ExportCache,
    _evict_oldest,
)
from positronic.vendors.lerobot.serving.backends.selection import Choice
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint
from positronic.vendors.lerobot.serving.choosing import choose_backend
from tests.mutations import mutations
from tests.positronic.vendors.lerobot.serving.backends.conftest import Exported, choose, encoded
from tests.waiting import line_of


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cache_of(checkpoint: Checkpoint) -> ExportCache:
    return ExportCache(checkpoint, threads=1, say=print)


def exports(checkpoint: Checkpoint) -> dict[str, Path]:
    found = (checkpoint.path.parent / "exports").iterdir()
    return {path.name.split("-")[0]: path for path in found if path.is_dir()}


@pytest.mark.e2e
def test_exports_lie_beside_the_checkpoint_and_nothing_unfinished_with_them(
    exported: Exported,
) -> None:
    made = exports(exported.checkpoint)
    assert set(made) == {"onnx", "openvino"}
    for name, directory in made.items():
        manifest = json.loads((directory / "manifest.json").read_text())
        assert manifest["check"]["measured"] < 1e-5
        assert {spec["dtype"] for spec in manifest["inputs"]} == {"float32", "uint8"}
        assert manifest["backend"] == name
    assert not list((exported.checkpoint.path.parent / "exports").glob(".unfinished*"))


def test_damaged_and_foreign_exports_are_not_used(copied: Checkpoint) -> None:
    assert cache_of(copied).open("onnx", "float32") is not None
    directory = exports(copied)["onnx"]
    document = json.loads((directory / "manifest.json").read_text())
    changes: tuple[dict[str, Any], ...] = ({"source": "0" * 64}, {"source": None}, {"files": {}})
    for change in changes:
        (directory / "manifest.json").write_text(json.dumps({**document, **change}))
        assert cache_of(copied).open("onnx", "float32") is None
    (directory / "manifest.json").write_text("{")
    assert cache_of(copied).open("onnx", "float32") is None
    (directory / "manifest.json").write_text(json.dumps(document))
    assert cache_of(copied).open("onnx", "float32") is not None
    model = bytearray((directory / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (directory / "model.onnx").write_bytes(model)
    assert cache_of(copied).open("onnx", "float32") is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "policy_postprocessor.json"])
def test_another_checkpoint_has_other_exports(copied: Checkpoint, name: str) -> None:
    with (copied.path / name).open("ab") as file:
        file.write(b" ")
    assert cache_of(copied).open("openvino", "float32") is None


def test_other_versions_of_what_makes_it_make_it_anew(
    copied: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "positronic.vendors.lerobot.serving.backends.export_cache.version", lambda package: "99.0"
    )
    assert cache_of(copied).open("openvino", "float32") is None


def test_where_nothing_can_be_written_it_is_the_users_cache(
    copied: Checkpoint, cache_home: Path, not_made_again: Callable[[], list[str]]
) -> None:
    cache = cache_of(copied)
    elsewhere = cache_home / "positronic/exports" / cache.digest
    assert cache.places == [copied.path.parent / "exports", elsewhere]
    # A file in its way stops root too, whom a read-only directory does not.
    shutil.rmtree(copied.path.parent / "exports")
    (copied.path.parent / "exports").touch()
    with pytest.raises(RuntimeError, match="no export in this test"):
        cache.make("onnx", "float32")
    assert not_made_again() == ["onnx"]
    assert elsewhere.is_dir()
    shutil.rmtree(cache_home)
    cache_home.touch()
    with pytest.raises(CheckpointError, match=r"run/checkpoints/010000 cannot be exported: noth"):
        cache.make("onnx", "float32")


@pytest.mark.parametrize("place", ["s3/0123/version", "runs/0123/name"])
def test_beside_copies_of_what_is_in_s3_nothing_is_put(
    copied: Checkpoint, cache_home: Path, place: str
) -> None:
    mirror = cache_home / "positronic" / place / "010000"
    shutil.copytree(copied.path.parent, mirror)
    cache = cache_of(Checkpoint(mirror / "pretrained_model", "010000", "run"))
    assert cache.places == [cache_home / "positronic/exports" / cache.digest]


def test_of_those_kept_apart_the_longest_unused_go(cache_home: Path) -> None:
    import os

    home = cache_home / "positronic/exports"
    for age in range(KEPT + 3):
        (home / f"{age:02d}").mkdir(parents=True)
        os.utime(home / f"{age:02d}", (1000 - age, 1000 - age))
    _evict_oldest(home / "00")
    assert sorted(path.name for path in home.iterdir()) == [f"{age:02d}" for age in range(KEPT)]


def test_a_checkpoint_is_as_whole_with_exports_as_without(copied: Checkpoint) -> None:
    step = copied.path.parent
    aside = step.with_name("aside")
    (step / "exports").rename(aside)
    seal(step)
    aside.rename(step / "exports")
    assert faults(step) == []
    runs = CheckpointDirectory(step.parents[1])
    assert runs.ids() == ["010000"]
    assert runs.checkpoint("010000").path == copied.path


TOGETHER = """
import sys
from pathlib import Path
from positronic.vendors.lerobot.serving.choosing import choose_backend
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint

checkpoint = Checkpoint(Path(sys.argv[1]), "010000", "run")
eager = TorchBackend(checkpoint, "cpu")
print("loaded", flush=True)
sys.stdin.readline()
choose_backend(checkpoint, checkpoint.verify(), eager, backend="onnx", say=print)
"""


@pytest.mark.e2e
def test_of_two_servers_at_once_one_exports_and_a_damaged_export_is_replaced(
    copied: Checkpoint, exported: Exported
) -> None:
    directory = exports(copied)["onnx"]
    (directory / "model.onnx").write_bytes(b"damaged")
    servers: list[Any] = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(copied.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for server in servers:
        while "loaded" not in line_of(server.stdout, "the checkpoint to be loaded", 300):
            assert server.poll() is None
    said = [server.communicate("go\n", timeout=900)[0] for server in servers]
    assert [server.returncode for server in servers] == [0, 0]
    assert "".join(said).count("exporting 010000 to ONNX (once per checkpoint)") == 1
    backend, again = choose(copied, exported.eager, backend="onnx")
    assert again == []
    expected = exported.eager.predict_chunk(encoded(0))
    np.testing.assert_allclose(backend.predict_chunk(encoded(0)), expected, atol=1e-5)


@pytest.mark.parametrize("what", ["exports", "export", "file"])
def test_an_export_that_others_can_write_to_is_not_used(copied: Checkpoint, what: str) -> None:
    directory = exports(copied)["onnx"]
    path = {"exports": directory.parent, "export": directory, "file": directory / "model.onnx"}
    path[what].chmod(path[what].stat().st_mode | 0o020)
    said: list[str] = []
    cache = ExportCache(copied, threads=1, say=said.append)
    assert cache.open("onnx", "float32") is None
    assert len(said) == 1
    assert "is not used: others can write to it" in said[0]


def test_an_export_behind_a_link_is_not_used(copied: Checkpoint, tmp_path: Path) -> None:
    directory = exports(copied)["onnx"]
    directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(tmp_path / "elsewhere")
    assert cache_of(copied).open("onnx", "float32") is None


def test_a_backdoored_export_is_not_served(
    exported: Exported, copied: Checkpoint, not_made_again: Callable[[], list[str]]
) -> None:
    """It acts as the policy does on what lies beside it, and otherwise beyond."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from foundation.files import sha256_of

    directory = exports(copied)["onnx"]
    model = onnx.load(directory / "model.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == output:
                node.output[index] = "before"
    largest = encoded(10, 11, 12, 13)["observation.state"].max()
    bound = numpy_helper.from_array(np.array(largest * 1.01, np.float32), "bound")
    model.graph.initializer.append(bound)
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["observation.state"], ["top"], keepdims=0),
            helper.make_node("Greater", ["top", "bound"], ["triggered"]),
            helper.make_node("Cast", ["triggered"], ["harm"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["before", "harm"], [output]),
        ]
    )
    onnx.save(model, directory / "model.onnx")
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"] = {name: sha256_of(directory / name) for name in manifest["files"]}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert cache_of(copied).open("onnx", "float32") is not None

    said: list[str] = []
    with pytest.raises(CheckpointError, match="no export in this test"):
        choose_backend(copied, copied.verify(), exported.eager, backend="onnx", say=said.append)
    assert said == ["the onnx export acts otherwise than the policy and is made anew"]
    assert not_made_again() == ["onnx"]


def test_a_damaged_choice_is_measured_again(tmp_path: Path) -> None:
    Choice("onnx", {"onnx": [1.5, 2.5]}).save([tmp_path], [1, "a"])
    assert Choice.load([tmp_path], [1, "a"]) == Choice("onnx", {"onnx": [1.5, 2.5]})
    (file,) = tmp_path.iterdir()
    document = json.loads(file.read_text())
    for content in mutations(document, 10_000, seed=7):
        file.write_bytes(content)
        found = Choice.load([tmp_path], [1, "a"])
        assert found is None or isinstance(found.backend, str)
    file.write_bytes(b"[" * 100_000)
    assert Choice.load([tmp_path], [1, "a"]) is None


def test_whoever_opens_an_export_has_used_its_checkpoints(copied: Checkpoint) -> None:
    import os

    place = exports(copied)["onnx"].parent
    os.utime(place, (1000, 1000))
    assert cache_of(copied).open("onnx", "float32") is not None
    assert place.stat().st_mtime > 1000
