"""Checkpoints whose weights or answers no robot should get, older good ones beside them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from positronic.errors import CheckpointError, CodecError
from positronic.offboard.models.model import UnfitModel
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.backends import examples
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoint_source import CheckpointSource
from positronic.vendors.lerobot.serving.policy import ServedPolicy, load_policy
from tests.positronic.vendors.lerobot.small_policy import make_run, observation

CODEC = codecs.joints_absolute()
NEWEST = "000030"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("unfit") / "run", CODEC, (10, 20, 30))
    rows = [CODEC.encode(observation(seed)) for seed in (1, 2, 3)]
    kept = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    save_file(kept, run / "checkpoints" / NEWEST / "pretrained_model" / examples.FILE_NAME)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def spoil(run: Path) -> Callable[..., None]:
    def change(bias: float, step: str = NEWEST, *, carries: bool = True) -> None:
        folder = run / "checkpoints" / step / "pretrained_model"
        weights = load_file(folder / "model.safetensors")
        weights["model.action_head.bias"][1] = bias
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if not carries:
            (folder / examples.FILE_NAME).unlink()

    return change


def source(run: Path) -> CheckpointSource:
    return CheckpointSource(CheckpointDirectory(run), None, "cpu")


@pytest.mark.parametrize("bias", [float("nan"), float("-inf"), 1e3, 1e6, 1e30])
def test_it_is_passed_over_and_the_newest_good_one_taken(
    run: Path, spoil: Callable[..., None], bias: float, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(bias)
    spoil(float("nan"), "000020")
    policy = load_policy(checkpoints_dir=str(run), device="cpu")
    assert policy.meta["checkpoint_id"] == "000010"
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if line.startswith("passed over: checkpoint run/checkpoints/")]
    assert [line.split("/")[2].split()[0] for line in said] == [NEWEST, "000020"]


@pytest.mark.parametrize("carries", [True, False])
@pytest.mark.parametrize(
    ("bias", "says"),
    [
        (float("nan"), "weights that are not finite numbers, such as 'model.action_head.bias'"),
        (1e3, "answers its own examples with nonsense: the policy predicted 20"),
        (1e30, "answers its own examples with nonsense"),
    ],
)
def test_it_is_refused_where_it_is_asked_for_by_name(
    run: Path, spoil: Callable[..., None], bias: float, says: str, carries: bool
) -> None:
    spoil(bias, carries=carries)
    with pytest.raises(UnfitModel, match=says) as refused:
        source(run).load(NEWEST, print)
    assert "\n" not in str(refused.value)
    with pytest.raises(UnfitModel, match=says):
        load_policy(checkpoints_dir=str(run), checkpoint=30, device="cpu")
    source(run).load("000010", print)


def test_a_single_bad_one_is_an_error(run: Path, spoil: Callable[..., None]) -> None:
    for step in ("000010", "000020", NEWEST):
        spoil(float("inf"), step)
    with pytest.raises(CheckpointError, match="run/checkpoints/000010 has weights that are not"):
        load_policy(checkpoints_dir=str(run), device="cpu")


def test_an_answer_beyond_the_training_is_an_error_reply(run: Path) -> None:
    import torch

    checkpoint = CheckpointDirectory(run).checkpoint(NEWEST)
    policy = ServedPolicy(checkpoint, checkpoint.verify(), "cpu")
    policy.require_fit()
    assert policy.new_session().infer(observation())
    with torch.no_grad():
        policy._backend.policy.model.action_head.bias[2] = 1e3  # type: ignore[attr-defined]
    with pytest.raises(CodecError, match=r"for element 2 of action \d, expected at most 15:"):
        policy.new_session().infer(observation())
