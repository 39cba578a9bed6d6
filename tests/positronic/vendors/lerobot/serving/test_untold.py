"""Checkpoints that LeRobot's own training command wrote: served as they are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.codec import LeRobotFeatures
from positronic.errors import ContractError
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.policy import ServedPolicy, load_policy
from tests.positronic.vendors.lerobot.native_dataset import (
    MOTORS,
    TINY_ACT,
    lerobot_chunk,
    observation,
    write_so100,
)

MODEL = "pretrained_model"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_so100(tmp_path_factory.mktemp("data") / "so100", fps=50)


@pytest.fixture(scope="module")
def native(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of LeRobot's own training command."""
    output = tmp_path_factory.mktemp("native") / "run"
    fields = {
        **TINY_ACT,
        "pretrained_backbone_weights": "null",
        "push_to_hub": "false",
        "device": "cpu",
    }
    words = ["--dataset.repo_id=local/so100", f"--dataset.root={dataset}", "--policy.type=act"]
    words += [f"--policy.{name}={value}" for name, value in fields.items()]
    words += ["--steps=2", "--save_freq=1", "--batch_size=4", "--num_workers=0"]
    command = Path(sys.executable).parent / "lerobot-train"
    done = subprocess.run(
        [str(command), *words, f"--output_dir={output}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return output


def load(place: Path, **options: Any) -> ServedPolicy:
    policy: ServedPolicy = load_policy(str(place), device="cpu", **options)
    return policy


def test_answers_are_those_of_lerobot_at_the_datasets_rate(native: Path, dataset: Path) -> None:
    policy = load(native)
    assert policy.meta["action_fps"] == 50
    assert policy.meta["contract"]["features"]["action"]["names"] == MOTORS
    for row in (0, 9, 20):
        obs = observation(dataset, row)
        answer = policy.new_session().infer(obs)
        expected = lerobot_chunk(native / "checkpoints/last" / MODEL, obs)[: len(answer)]
        np.testing.assert_allclose([each["action"] for each in answer], expected, atol=1e-5)
        assert [action["timestamp"] for action in answer] == [0, 0.02, 0.04, 0.06]


def test_a_run_a_step_and_its_model_are_all_accepted(native: Path) -> None:
    step = native / "checkpoints/000002"
    for place in (native, native / "checkpoints", step, step / MODEL, native / "checkpoints/last"):
        directory = CheckpointDirectory(place)
        assert directory.resolve() == "000002"
        contract = directory.checkpoint("000002").verify()
        assert (contract.fps, contract.codec["name"]) == (50, LeRobotFeatures.kind)
    assert CheckpointDirectory(native).ids() == ["000001", "000002"]
    assert CheckpointDirectory(native).resolve("last") == "000002"


def moved(native: Path, tmp_path: Path, **dataset: Any) -> Any:
    """The newest checkpoint elsewhere, naming another dataset."""
    shutil.copytree(native / "checkpoints/000002", tmp_path / "run/checkpoints/000002")
    file = tmp_path / "run/checkpoints/000002" / MODEL / "train_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "dataset": dataset}))
    return CheckpointDirectory(tmp_path / "run").checkpoint("000002")


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"repo_id": "me/pens", "root": "/nowhere/pens"}, "names /nowhere/pens, which is not here"),
        ({"repo_id": "me/pens", "root": None}, r"names .*/lerobot/me/pens, which is not here"),
        ({}, "names no dataset"),
        ({"root": 7}, "names no dataset"),
    ],
)
def test_an_unknown_rate_is_asked_for(
    native: Path, tmp_path: Path, source: Any, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    checkpoint = moved(native, tmp_path, **source)
    with pytest.raises(ContractError, match=f"{named}; give the rate .* --fps=30"):
        checkpoint.verify()
    contract = checkpoint.verify(fps=30)
    assert contract.fps == 30
    assert contract.features["action"]["names"] is None
    assert contract.features["observation.images.front"]["shape"] == [48, 64, 3]


def test_a_dataset_in_lerobots_own_place_is_found(
    native: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(dataset.parent.parent))
    checkpoint = moved(native, tmp_path, repo_id=f"{dataset.parent.name}/so100", root=None)
    assert checkpoint.verify().fps == 50


def test_another_rate_than_the_known_one_is_refused(native: Path) -> None:
    checkpoint = CheckpointDirectory(native).checkpoint("000002")
    assert checkpoint.verify(fps=50).fps == 50
    why = "trained on .*, which has 50 rows per second; leave --fps away"
    with pytest.raises(ContractError, match=f"--fps=25, .*{why}"):
        checkpoint.verify(fps=25)
    checkpoint.verify().save(checkpoint.path)
    with pytest.raises(ContractError, match="--fps=25, .* was trained at 50 rows per second"):
        checkpoint.verify(fps=25)
    (checkpoint.path / "contract.json").unlink()
