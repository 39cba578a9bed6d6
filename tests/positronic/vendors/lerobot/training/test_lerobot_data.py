"""A dataset of somebody else's robot, trained on and served with its features as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.codec import Contract
from positronic.errors import CodecError, ContractError
from positronic.vendors.lerobot.serving.policy import load_policy
from tests.positronic.vendors.lerobot.native_dataset import (
    MOTORS,
    TINY_ACT,
    lerobot_chunk,
    observation,
    write_so100,
)
from tests.positronic.vendors.lerobot.training.training_commands import command, refused

ACT = ["--policy=act", *(f"--policy.{name}={value}" for name, value in TINY_ACT.items())]
OTHERS: dict[str, dict[str, Any]] = {
    "observation.note": {"dtype": "string", "shape": (1,), "names": None},
    "observation.touch": {"dtype": "bool", "shape": (2,), "names": {"left": 0, "right": 1}},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
}


def flags(dataset: Path, output_dir: Path, *more: str) -> list[str]:
    common = ["--batch_size=2", "--num_workers=0", "--device=cpu", "--cache=off", "--steps=2"]
    where = [f"--dataset_root={dataset}", "--run_name=run", f"--output_dir={output_dir}"]
    return [*where, *ACT, *common, *more]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_so100(tmp_path_factory.mktemp("data") / "so100", fps=50)


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    assert command(*flags(dataset, runs)) == 0
    return runs / "run"


def test_the_checkpoint_states_the_features_as_they_are(dataset: Path, run: Path) -> None:
    contract = Contract.load(run / "checkpoints/last/pretrained_model")
    assert contract.codec["name"] == "lerobot"
    assert (contract.fps, contract.chunk_size, contract.n_action_steps) == (50, 6, 4)
    assert contract.features["action"]["names"] == MOTORS
    assert contract.features["observation.images.wrist"]["shape"] == [64, 48, 3]
    stats = json.loads((dataset / "meta/stats.json").read_text())
    assert contract == contract.with_statistics(stats)
    assert set(contract.feature_digests or ()) == set(contract.features)


@pytest.mark.parametrize("row", [0, 17])
def test_answers_are_those_of_lerobot(dataset: Path, run: Path, row: int) -> None:
    policy = load_policy(str(run), device="cpu")
    obs = observation(dataset, row)
    answer = policy.new_session().infer(obs)
    native = lerobot_chunk(run / "checkpoints/last/pretrained_model", obs)
    assert np.abs(native).max() > 1  # degrees
    np.testing.assert_allclose([each["action"] for each in answer], native[:4], atol=1e-5, rtol=0)
    assert [each["timestamp"] for each in answer] == [0, 0.02, 0.04, 0.06]
    assert policy.meta["contract"]["features"]["action"]["names"] == MOTORS


def test_an_observation_in_another_unit_is_refused(dataset: Path, run: Path) -> None:
    obs = observation(dataset, 3)
    session = load_policy(str(run), device="cpu").new_session()
    with pytest.raises(CodecError, match=r"observation\.state.*in training the largest"):
        session.infer(obs | {"observation.state": 100 * obs["observation.state"]})


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_so100(tmp_path_factory.mktemp("data") / "other", fps=30, use_videos=False)


def test_it_resumes_on_this_dataset_only(
    dataset: Path, other: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()  # what wrote the datasets
    error = refused(capsys, 1, *flags(other, run.parent, "--resume=True", "--steps=3"))
    assert "fps: 50 against 30" in error
    assert command(*flags(dataset, run.parent, "--resume=True", "--steps=3")) == 0


def test_features_that_no_policy_uses_are_left_out(tmp_path: Path) -> None:
    from positronic.vendors.lerobot.training.preflight import dataset_contract

    root = write_so100(tmp_path / "data", cameras={}, more=OTHERS, use_videos=False)
    contract = dataset_contract(root, None)
    assert list(contract.features) == ["action", "observation.state", "observation.touch"]
    assert contract.features["observation.touch"]["names"] == ["left", "right"]


def test_simulation_needs_a_codec(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, 2, *flags(dataset, tmp_path, "--eval_env=stack_cubes"))
    assert "needs a dataset with a codec" in error


def test_a_codec_that_did_not_make_it_is_refused(run: Path) -> None:
    from positronic.vendors.lerobot import codecs

    with pytest.raises(ContractError, match="trained with codec 'lerobot', not with --codec"):
        load_policy(str(run), codec=codecs.eepose_state())
