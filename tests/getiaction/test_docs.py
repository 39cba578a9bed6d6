"""Every code block of ``docs/getiaction.md`` runs, in order, as one reader would run them."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from getiaction.cli import main
from getiaction.export import InferenceModel
from tests.getiaction.hub import PUSHT, Hub, make_hub
from tests.getiaction.snippets import code_blocks, run, shrink, smaller

DOCUMENT = Path(__file__).parents[2] / "docs/getiaction.md"
# What takes part in a step of training is the page's; how much of it is not.
ENOUGH = [
    "--trainer.fast_dev_run=1",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--data.train_batch_size=4",
    "--data.max_episode_steps=3",
]
NATIVE_ENOUGH = {"max_epochs": 1, "batch_size": 42, "num_workers": 0, "device": "cpu"}

# moto's server and botocore speak of times and sockets in ways that Python has come to dislike.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:moto"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*but CUDA is not available"),
]


@pytest.fixture
def hub(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Hub:
    made = make_hub(tmp_path_factory, PUSHT)
    made.enter(monkeypatch)
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    Path("datasets").mkdir()
    Path("datasets/pusht").symlink_to(made.lerobot_home / PUSHT.repo_id)
    return made


@pytest.fixture
def bucket(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``s3://robots/pusht``."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="robots")
    root = hub.lerobot_home / PUSHT.repo_id
    for file in root.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "robots", f"pusht/{file.relative_to(root)}")
    yield
    server.stop()


def run_command(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "getiaction"
    trains = "fit" in words and not {"--help", "--model.help"} & set(words)
    assert main([*words, *(ENOUGH if trains else [])]) == 0, line


def run_yaml(text: str, number: int) -> None:
    path = Path("pusht.yaml" if number == 1 else f"block{number}.yaml")
    path.write_text(text)
    if "trainer_type" in text:
        words = [f"--trainer.init_args.{k}={v}" for k, v in NATIVE_ENOUGH.items()]
        assert (
            main(["fit", f"--config={path}", *words, "--trainer.init_args.output_dir=native"]) == 0
        )
    else:
        assert main(["fit", f"--config={path}", *ENOUGH]) == 0


def test_the_page(hub: Hub, bucket: None) -> None:
    names: dict[str, Any] = {}
    for number, (language, code) in enumerate(code_blocks(DOCUMENT)):
        try:
            if language == "python":
                names = run(code, names)
            elif language == "yaml":
                run_yaml(smaller(code), number)
            else:
                assert language == "bash"
                for line in code.splitlines():
                    run_command(line)
        except Exception as error:
            error.add_note(f"in block {number} of {DOCUMENT.name}")
            raise
    assert names["best"].best_model_path
    assert isinstance(names["model"], InferenceModel)
    assert names["chunk"].shape == (1, 20, 2)
    assert names["remote"].meta.total_episodes == len(PUSHT.lengths)
    assert list(Path("native/checkpoints").glob("last/pretrained_model"))
