"""To the Hub and back, by our commands and by LeRobot itself."""

import json
import math
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation import storage
from foundation.documents import InvalidDocument
from foundation.errors import StorageError
from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import ACT
from getiaction.train import Trainer
from positronic import cli
from positronic.codec import Contract
from positronic.errors import CheckpointError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.convert import COMMANDS, PROG
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.policy import load_policy
from positronic.vendors.lerobot.verification.verify import verify_dataset
from tests.hub_server import HubServer
from tests.positronic.vendors.lerobot.raw import record
from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.positronic.vendors.lerobot.small_policy import make_run, observation
from tests.positronic.vendors.lerobot.training.training_commands import command, flags

NAME, DATASET, POLICY = "somebody/stack", "hf://datasets/somebody/stack", "hf://somebody/stack"


@pytest.fixture(autouse=True)
def lerobots_home(hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lerobot.datasets import dataset_metadata, lerobot_dataset

    home = tmp_path / "huggingface/lerobot"
    monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HOME", home)
    for module in (dataset_metadata, lerobot_dataset):
        monkeypatch.setattr(module, "HF_LEROBOT_HUB_CACHE", home / "hub")


@pytest.fixture
def dataset_root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset")


def run(*words: object) -> int:
    return cli.status(COMMANDS, PROG, [str(word) for word in words])


def held(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def without_card(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != "README.md"}


def test_a_converted_dataset_comes_back_through_lerobot_and_our_commands(
    hub_server: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lerobot.datasets import LeRobotDataset

    raw, root = tmp_path / "raw", tmp_path / "stack"
    for index in range(2):
        record(raw, index, steps=6)
    assert (
        run(
            "convert",
            f"--dataset.dataset={raw}",
            "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_absolute",
            f"--output_dir={root}",
            "--fps=15",
            "--workers=0",
            f"--push_to_hub={NAME}",
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"pushed to {DATASET} at ")
    repository = hub_server.of("dataset", NAME)
    assert repository.private
    assert repository.tags == {"v3.0": repository.branches["main"]}
    assert without_card(repository.files()) == held(root)
    card = repository.files()["README.md"].decode()
    assert "LeRobot" in card
    assert "license:" not in card  # nobody gave one

    ours = LeRobotDataset("local", root=root, video_backend="pyav")
    theirs = LeRobotDataset(NAME, video_backend="pyav")
    assert len(ours) == len(theirs) == 14
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            assert torch.equal(value, other[name]) if torch.is_tensor(value) else True, name
    data = LeRobotDataModule(root=DATASET, num_workers=0, video_backend="pyav")
    assert data.meta.total_frames == 14

    shutil.rmtree(tmp_path / "huggingface")
    asked = len(hub_server.requests)
    assert run("info", DATASET) == 0
    assert "episodes     2" in capsys.readouterr().out
    assert not [path for _, path in hub_server.requests[asked:] if "/videos/" in path]
    assert run("verify", f"--dataset_root={DATASET}", "--workers=1") == 0
    assert f"{DATASET} is valid: 2 episodes" in capsys.readouterr().out
    assert run("verify", f"--dataset_root={DATASET}", "--repair=statistics", "--workers=1") == 0


def test_what_is_pushed_again_replaces_what_was_there(
    hub_server: HubServer, dataset_root: Path
) -> None:
    assert run("push", dataset_root, NAME, "--private=False") == 0
    repository = hub_server.of("dataset", NAME)
    assert not repository.private
    before = repository.tags["v3.0"]
    files = repository.files()
    # As an earlier dataset with more files, and what somebody added on the Hub.
    repository.commit({**files, "data/chunk-000/file-007.parquet": b"", "picture.png": b""})
    info = dataset_root / "meta/info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "robot_type": "arm"}))
    assert run("push", dataset_root, NAME) == 0
    assert repository.files().keys() == {*files, "picture.png"}
    assert without_card(repository.files("v3.0")) == {**held(dataset_root), "picture.png": b""}
    # Of the tag, not of main, as LeRobot has it; unless another revision is named.
    repository.commit({})
    assert storage.read_bytes(f"{DATASET}@{before}/meta/info.json") != info.read_bytes()
    assert LeRobotDataModule(root=DATASET).meta.robot_type == "arm"
    assert LeRobotDataModule(root=f"{DATASET}@{before}").meta.robot_type is None


def test_a_failed_push_loses_nothing_and_says_how_to_push_again(
    hub_server: HubServer, dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = held(dataset_root)
    for broken in ("create", "preupload", "/lfs/", "commit", "tag"):
        hub_server.broken = broken
        assert run("push", dataset_root, NAME, "--private=False") == 1
        error = capsys.readouterr().err
        assert error.startswith(f"{PROG}: error: {dataset_root} is complete, but was not pu")
        assert error.count("\n") == 1
        assert held(dataset_root) == before
    again = error.split("`")[1]
    assert again == f"{PROG} push --directory={dataset_root} --repo_id={NAME} --private=False"
    hub_server.broken = ""
    assert run(*shlex.split(again)[1:]) == 0
    assert without_card(hub_server.of("dataset", NAME).files("v3.0")) == before


def test_nothing_is_converted_for_a_hub_that_would_refuse_it(
    hub_server: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record(tmp_path / "raw", 0, size=None)
    words = [
        "convert",
        f"--dataset.dataset={tmp_path}/raw",
        "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_state",
        f"--output_dir={tmp_path}/out",
        "--fps=15",
    ]

    def refusal(name: str) -> str:
        assert run(*words, f"--push_to_hub={name}") in (1, 2)
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    for name in ("stack", "a/b/c", "a/b@main", "datasets/a/b", ""):
        assert f"--push_to_hub is {name!r}; expected USER/NAME" in refusal(name)
    assert hub_server.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "no access to hf://datasets/a/b" in refusal("a/b")
    monkeypatch.delenv("HF_TOKEN")
    assert "without a token; set HF_TOKEN" in refusal("a/b")


def test_a_token_without_the_right_to_write(
    hub_server: HubServer, dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_server.read_only = True
    assert run("push", dataset_root, NAME) == 1
    error = capsys.readouterr().err
    assert "no access to hf://datasets/somebody/stack" in error
    assert "set HF_TOKEN to a token that has access" in error


def test_what_is_damaged_is_not_pushed(
    hub_server: HubServer, dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(dataset_root / "meta/episodes")
    assert run("push", dataset_root, NAME) == 1
    assert f"the dataset at {dataset_root} is incomplete" in capsys.readouterr().err
    policy = make_run(tmp_path / "run", codecs.eepose_state(), (10,)) / "checkpoints/000010"
    weights = policy / "pretrained_model/model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).fill_(math.nan)
    save_file(tensors, weights)
    assert run("push", policy, NAME) == 1
    assert "has weights that are not finite numbers" in capsys.readouterr().err
    weights.unlink()
    assert run("push", policy, NAME) == 1
    assert hub_server.repositories == {}


def test_a_policy_acts_the_same_from_the_hub(hub_server: HubServer, tmp_path: Path) -> None:
    from lerobot.policies.act.modeling_act import ACTPolicy

    codec = codecs.eepose_state()
    local = make_run(tmp_path / "run", codec, (10,))
    folder = local / "checkpoints/000010/pretrained_model"
    assert run("push", folder.parent, NAME) == 0
    repository = hub_server.of("model", NAME)
    assert repository.private
    assert without_card(repository.files()) == held(folder)
    assert "pipeline_tag: robotics" in repository.files()["README.md"].decode()

    weights = ACTPolicy.from_pretrained(folder).state_dict()
    for name, weight in ACTPolicy.from_pretrained(NAME).state_dict().items():
        assert torch.equal(weight, weights[name])
    for name in (NAME, POLICY, f"{POLICY}@main", Path(POLICY)):
        assert ACT.from_pretrained(name).config.chunk_size == 10

    directory = CheckpointDirectory(POLICY)
    first = repository.branches["main"]
    assert directory.ids() == [first[:12]]
    checkpoint = directory.checkpoint(directory.resolve())
    assert checkpoint.label == f"{NAME}@{first[:12]}"
    repository.commit({})  # what is pushed meanwhile is another one
    contract = directory.checkpoint(directory.resolve()).verify()
    assert contract == Contract.load(folder / "contract.json")
    actions = [
        load_policy(place, device="cpu", backend="torch").new_session().infer(observation())
        for place in (str(local), f"{POLICY}@{first}")
    ]
    assert str(actions[0]) == str(actions[1])


def test_a_policy_of_the_hub_is_not_trusted(hub_server: HubServer, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", codecs.eepose_state(), (10,))
    files = held(folder / "checkpoints/000010/pretrained_model")
    bad = json.loads(files["policy_preprocessor.json"])
    bad["steps"][0] = {"class": "os.system", "config": {}}
    files["policy_preprocessor.json"] = json.dumps(bad).encode()
    hub_server.put("model", NAME, {**files, "exports/onnx/model.onnx": b"", "code.py": b""})
    directory = CheckpointDirectory(POLICY)
    with pytest.raises(CheckpointError, match=r"checkpoint somebody/stack@.* names the class"):
        directory.checkpoint(directory.resolve()).verify()
    with pytest.raises(InvalidDocument, match="names the class 'os.system'"):
        ACT.from_pretrained(POLICY)
    fetched = {path.rpartition("/")[2] for _, path in hub_server.requests if "/resolve/" in path}
    assert "model.safetensors" in fetched
    assert not fetched & {"model.onnx", "code.py"}


def test_training_reads_from_the_hub_and_pushes_to_it(
    hub_server: HubServer, dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("push", dataset_root, NAME) == 0
    shutil.rmtree(dataset_root)
    words = flags(Path("unused"), tmp_path / "out", f"--push_to_hub={NAME}")
    words[0] = f"--dataset_root={DATASET}"
    hub_server.broken = "models/somebody/stack/commit"
    assert command(*words) == 1
    last = tmp_path / "out/run/checkpoints/last/pretrained_model"
    captured = capsys.readouterr()
    assert f"--directory={last} --repo_id={NAME}`" in captured.err
    assert (last / "model.safetensors").is_file()
    hub_server.broken = ""
    assert run("push", last, NAME) == 0
    files = hub_server.of("model", NAME).files()
    assert without_card(files) == held(last)
    card = files["README.md"].decode()
    assert f"datasets: {NAME}" in card
    assert "| Training steps | 1 |" in card
    assert ACT.from_pretrained(POLICY).config.chunk_size == 6


def test_what_is_nothing_to_push_is_said_before_anybody_is_asked(
    hub_server: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert run("push", tmp_path, NAME) == 1
    assert f"there is no LeRobot policy at {tmp_path}" in capsys.readouterr().err
    assert hub_server.requests == []


def test_who_names_no_repository_asks_nobody(
    hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See also `tests/e2e/test_readme.py`, where no program reaches another machine."""

    def connect(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"asked {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    raw, root = tmp_path / "raw", tmp_path / "dataset"
    for index in range(2):
        record(raw, index, size=None)
    codec = "--dataset.codec=@positronic.vendors.lerobot.codecs.eepose_state"
    words = [f"--dataset.dataset={raw}", codec, f"--output_dir={root}", "--fps=15"]
    assert run("convert", *words, "--workers=0") == 0
    assert run("info", root) == 0
    assert verify_dataset(root, workers=1).faults == ()
    assert command(*flags(root, tmp_path / "out")) == 0
    policy = load_policy(str(tmp_path / "out/run"), device="cpu", backend="torch")
    assert policy.new_session().infer(observation())
    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.fit(ACT(dim_model=32, n_heads=2), datamodule=LeRobotDataModule(root=root))
    assert hub_server.requests == []


def test_where_there_is_nothing(hub_server: HubServer) -> None:
    with pytest.raises(StorageError, match="there is no dataset somebody/stack at http://127"):
        LeRobotDataModule(root=DATASET)
    with pytest.raises(StorageError, match="there is no model somebody/stack at .*HF_TOKEN"):
        CheckpointDirectory(POLICY)
    hub_server.put("dataset", NAME, {"README.md": b""})
    with pytest.raises(GetiactionError, match="is not a LeRobot dataset: .* has no meta/info.json"):
        LeRobotDataModule(root=DATASET)
    hub_server.put("model", NAME, {"README.md": b""})
    with pytest.raises(CheckpointError, match="No checkpoints found in hf://somebody/stack"):
        CheckpointDirectory(POLICY)
