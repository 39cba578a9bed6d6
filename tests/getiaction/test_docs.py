"""Every code block of ``docs/getiaction.md`` runs, in order, as one reader would run them."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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

pytestmark = [
    pytest.mark.e2e,
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
def bucket(hub: Hub, s3: Any) -> None:
    """``s3://robots/pusht``."""
    s3.create_bucket(Bucket="robots")
    root = hub.lerobot_home / PUSHT.repo_id
    for file in root.rglob("*"):
        if file.is_file():
            s3.upload_file(str(file), "robots", f"pusht/{file.relative_to(root)}")


def run_command(line: str) -> None:
    program, *words = shlex.split(line)
    if program != "getiaction":
        subprocess.run([Path(sys.executable).with_name(program), *words], check=True)
        return
    trains = "fit" in words and not {"--help", "--model.help"} & set(words)
    assert main([*words, *(ENOUGH if trains else [])]) == 0, line


def run_yaml(text: str, number: int) -> None:
    path = Path("pusht.yaml")
    if path.exists():
        path = Path(f"block{number}.yaml")
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
            elif language == "bash":
                for line in code.replace("\\\n", "").splitlines():
                    run_command(line)
            else:
                assert language == "text"
        except Exception as error:
            error.add_note(f"in block {number} of {DOCUMENT.name}")
            raise
    assert names["best"].best_model_path
    assert isinstance(names["model"], InferenceModel)
    assert names["chunk"].shape == (1, 20, 2)
    assert names["remote"].meta.total_episodes == len(PUSHT.lengths)
    assert list(Path("native/checkpoints").glob("last/pretrained_model"))
