"""Checkpoints that LeRobot's own training and Lightning wrote: served as they are."""

import json
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation import storage
from positronic.codec import LeRobotFeatures
from positronic.errors import CheckpointError, ContractError
from positronic.vendors.lerobot import codecs
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


def lerobot_train(dataset: Path, output: Path) -> Path:
    """Train two steps by LeRobot's own function, as its program does; return the run."""
    from accelerate.state import AcceleratorState
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.policies.factory import make_policy_config
    from lerobot.scripts import lerobot_train

    config = TrainPipelineConfig(
        dataset=DatasetConfig(repo_id="local/so100", root=str(dataset)),
        policy=make_policy_config("act", device="cpu", push_to_hub=False, **TINY_ACT),
        output_dir=output,
        batch_size=2,
        steps=2,
        save_freq=1,
        num_workers=0,
    )
    # Accelerate keeps the first precision of a process; another test's may be there.
    AcceleratorState._reset_state(True)
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["lerobot-train"])
                lerobot_train.train(config)
    finally:
        root.handlers[:], root.level = kept
    return output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Path]]:
    """By rate: a dataset, and the output directory of LeRobot's own training on it."""
    place = tmp_path_factory.mktemp("native")
    found = {}
    for fps in (30, 50):
        data = write_so100(place / f"so100-{fps}", fps=fps, use_videos=False)
        found[fps] = data, lerobot_train(data, place / f"run-{fps}")
    return found


@pytest.fixture(scope="module")
def dataset(trained: dict[int, tuple[Path, Path]]) -> Path:
    return trained[50][0]


@pytest.fixture(scope="module")
def native(trained: dict[int, tuple[Path, Path]]) -> Path:
    return trained[50][1]


def load(place: Path, **options: Any) -> ServedPolicy:
    policy: ServedPolicy = load_policy(str(place), device="cpu", **options)
    return policy


@pytest.mark.parametrize("fps", [30, 50])
def test_answers_are_those_of_lerobot_at_the_datasets_rate(
    trained: dict[int, tuple[Path, Path]], fps: int
) -> None:
    data, run = trained[fps]
    policy = load(run)
    contract = policy.meta["contract"]
    assert (policy.meta["action_fps"], contract["fps"], contract["chunk_size"]) == (fps, fps, 6)
    assert contract["features"]["action"]["names"] == MOTORS
    for row in (0, 9, 20):
        obs = observation(data, row)
        answer = policy.new_session().infer(obs)
        expected = lerobot_chunk(run / "checkpoints/last" / MODEL, obs)[: len(answer)]
        np.testing.assert_allclose([each["action"] for each in answer], expected, atol=1e-5, rtol=0)
        assert [action["timestamp"] for action in answer] == [i / fps for i in range(4)]


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
        (
            {"repo_id": "me/pens", "root": "/nowhere/pens"},
            "names /nowhere/pens, which is not here, or another now",
        ),
        (
            {"repo_id": "me/pens", "root": None},
            r"names .*/lerobot/me/pens, which is not here, or another now",
        ),
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
    checkpoint = moved(native, tmp_path, repo_id=f"{dataset.parent.name}/{dataset.name}", root=None)
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


def test_a_copy_by_another_name_is_taken(
    trained: dict[int, tuple[Path, Path]], tmp_path: Path
) -> None:
    copy = shutil.copytree(trained[50][1] / "checkpoints/last" / MODEL, tmp_path / "my_policy")
    directory = CheckpointDirectory(copy)
    checkpoint = directory.checkpoint(directory.resolve())
    assert checkpoint.label == "my_policy"
    assert checkpoint.verify().fps == 50


def test_last_is_the_newest_in_s3(
    trained: dict[int, tuple[Path, Path]], s3: Any, tmp_path: Path
) -> None:
    step = trained[30][1] / "checkpoints/000002"
    for name in ("000002", "000010"):
        shutil.copytree(step / "pretrained_model", tmp_path / name / "pretrained_model")
        storage.publish(tmp_path / name, f"s3://bucket/run/checkpoints/{name}")
    for end in ("last", "last/pretrained_model"):
        directory = CheckpointDirectory(f"s3://bucket/run/checkpoints/{end}")
        assert directory.ids() == ["000010"]


def test_another_dataset_at_its_place_is_not_its_dataset(native: Path, tmp_path: Path) -> None:
    (tmp_path / "data/meta").mkdir(parents=True)
    checkpoint = moved(native, tmp_path, root=str(tmp_path / "data"))
    for features in ({}, {"action": {"dtype": "float32", "shape": [7], "names": None}}):
        other = {"codebase_version": "v3.0", "fps": 10, "features": features}
        (tmp_path / "data/meta/info.json").write_text(json.dumps(other))
        with pytest.raises(ContractError, match="not here, or another now; give the rate"):
            checkpoint.verify()


def test_a_codec_of_ones_own_gets_the_rate_of_the_dataset(
    trained: dict[int, tuple[Path, Path]],
) -> None:
    codec = codecs.joints(
        cameras={"front": "image.front", "wrist": "image.wrist"},
        image_size={"front": [48, 64], "wrist": [64, 48]},
        state=["robot_state.q:6"],
        n_joints=6,
        grip=None,
    )
    for fps, (_, run) in trained.items():
        contract = CheckpointDirectory(run).checkpoint("000002").verify(codec)
        assert (contract.fps, contract.codec["name"]) == (fps, "joints")


@pytest.fixture(scope="module")
def ckpt(trained: dict[int, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from getiaction.data import LeRobotDataModule
    from getiaction.policies.lerobot import LeRobotPolicy
    from getiaction.train import Trainer

    place = tmp_path_factory.mktemp("lightning")
    data = LeRobotDataModule(root=trained[50][0], train_batch_size=2, num_workers=0)
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        default_root_dir=place,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(LeRobotPolicy("act", **TINY_ACT), datamodule=data)
        trainer.save_checkpoint(place / "epoch=0-step=1.ckpt")
    return place / "epoch=0-step=1.ckpt"


def test_a_lightning_checkpoint_is_served(
    ckpt: Path, trained: dict[int, tuple[Path, Path]], tmp_path: Path
) -> None:
    from getiaction.policies.lerobot import LeRobotPolicy

    policy = load_policy(str(ckpt), device="cpu")
    obs = observation(trained[50][0], 8)
    answer = policy.new_session().infer(obs)
    LeRobotPolicy.from_pretrained(ckpt).save_pretrained(tmp_path / "native")
    native = lerobot_chunk(tmp_path / "native", obs)
    np.testing.assert_allclose([each["action"] for each in answer], native[:4], atol=1e-5, rtol=0)
    assert [each["timestamp"] for each in answer] == [0, 0.02, 0.04, 0.06]
    assert policy.meta["checkpoint_id"] == "epoch=0-step=1"


def test_a_lightning_checkpoint_of_an_older_version_is_asked_for_its_rate(
    ckpt: Path, tmp_path: Path
) -> None:
    import torch

    content = torch.load(ckpt, weights_only=True)
    del content["getiaction"]["dataset_fps"]
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(ContractError, match="checkpoint old does not say .* as in --fps=30$"):
        load_policy(str(tmp_path / "old.ckpt"))
    assert load_policy(str(tmp_path / "old.ckpt"), fps=40, device="cpu").meta["action_fps"] == 40


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt cannot be read as a Lightning checkp"):
        CheckpointDirectory(tmp_path / "bad.ckpt")
