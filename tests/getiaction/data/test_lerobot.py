import json
import shutil
from pathlib import Path

import pytest
import torch
from lerobot.datasets import EpisodeAwareSampler

from getiaction.data import GatheredDataset, LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import policy_config

CONFIG = policy_config("act", {"chunk_size": 5, "n_action_steps": 5})


def test_order_is_lerobots_and_every_epoch_is_whole(state_root: Path) -> None:
    data = LeRobotDataModule(root=state_root, train_batch_size=6, seed=4)
    data.prepare(CONFIG)
    native = EpisodeAwareSampler([0, 9, 23], [9, 23, 34], shuffle=True, seed=4)
    loader = data.train_dataloader()
    for _ in range(2):
        batches = [batch["index"] for batch in loader]
        assert torch.cat(batches).tolist() == list(native)
        assert [len(batch) for batch in batches] == [6] * 5 + [4]


def test_held_out_episodes_are_the_last_of_each_task(state_root: Path) -> None:
    data = LeRobotDataModule(root=state_root, val_split=0.5)
    data.prepare(CONFIG)
    seen = torch.cat([batch["episode_index"] for batch in data.train_dataloader()])
    (loader,) = data.val_dataloader()
    held_out = torch.cat([batch["episode_index"] for batch in loader])
    assert set(seen.tolist()) == {0}
    assert set(held_out.tolist()) == {1, 2}


def test_image_statistics_are_imagenets_unless_told(image_root: Path) -> None:
    key = "observation.images.left"
    stats = LeRobotDataModule(root=image_root).meta.stats[key]
    assert stats["mean"].ravel().tolist() == pytest.approx([0.485, 0.456, 0.406])
    own = LeRobotDataModule(root=image_root, use_imagenet_stats=False).meta.stats[key]
    assert own["mean"].ravel().tolist() == pytest.approx([0.5] * 3, abs=0.05)


@pytest.mark.e2e  # a spawned process imports torch and LeRobot first
def test_worker_processes_give_the_same_batches(state_root: Path) -> None:
    def epoch(**options: int | bool) -> list[int]:
        data = LeRobotDataModule(root=state_root, train_batch_size=6, **options)  # type: ignore[arg-type]
        data.prepare(CONFIG)
        assert isinstance(data.train_dataset, GatheredDataset)
        return [i for batch in data.train_dataloader() for i in batch["index"].tolist()]

    assert epoch(num_workers=1) == epoch(num_workers=0)


def broken(root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(root, tmp_path / "broken")


def test_a_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match="there is no dataset at"):
        LeRobotDataModule(root=tmp_path / "nowhere")


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match=r"not a LeRobot dataset: it has no meta/info.json"):
        LeRobotDataModule(root=tmp_path)


def test_an_older_format(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    with pytest.raises(GetiactionError, match=r"format v2.1; expected v3.x"):
        LeRobotDataModule(root=root)


def test_an_empty_dataset(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_episodes": 0}))
    with pytest.raises(GetiactionError, match="is empty"):
        LeRobotDataModule(root=root)


def test_missing_metadata_is_not_sought_elsewhere(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    shutil.rmtree(root / "meta/episodes")
    with pytest.raises(GetiactionError, match="not whole: files under meta/"):
        _ = LeRobotDataModule(root=root).meta


def test_missing_data_is_not_sought_elsewhere(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    shutil.rmtree(root / "data")
    with pytest.raises(GetiactionError, match="not whole: episodes"):
        LeRobotDataModule(root=root).prepare(CONFIG)


def test_a_corrupt_table(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    next((root / "data").rglob("*.parquet")).write_bytes(b"PAR1 and then nothing of use PAR1")
    with pytest.raises(GetiactionError, match="cannot be read"):
        LeRobotDataModule(root=root).prepare(CONFIG)


def test_a_corrupt_video(image_root: Path, tmp_path: Path) -> None:
    root = broken(image_root, tmp_path)
    video = next((root / "videos").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:500])
    with pytest.raises(GetiactionError, match=r"mp4 cannot be decoded for episode 0"):
        LeRobotDataModule(root=root).prepare(CONFIG)


def test_neither_or_both_sources_are_refused() -> None:
    with pytest.raises(GetiactionError, match="give either a dataset, or"):
        LeRobotDataModule()
