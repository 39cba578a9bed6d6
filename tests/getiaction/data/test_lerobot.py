import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset, dataset_metadata

from foundation.errors import FoundationError
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
    # Task 1 has one episode only, which is trained on.
    assert set(seen.tolist()) == {0, 1}
    assert set(held_out.tolist()) == {2}


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
    with pytest.raises(GetiactionError, match="format v2.1, expected v3.0"):
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
    with pytest.raises(GetiactionError, match="is incomplete: files under meta/"):
        _ = LeRobotDataModule(root=root).meta


def test_missing_data_is_not_sought_elsewhere(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    shutil.rmtree(root / "data")
    with pytest.raises(GetiactionError, match="is incomplete: episodes"):
        LeRobotDataModule(root=root).prepare(CONFIG)


def test_a_corrupt_table(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    next((root / "data").rglob("*.parquet")).write_bytes(b"PAR1 and then nothing of use PAR1")
    with pytest.raises(FoundationError, match="cannot be read"):
        LeRobotDataModule(root=root).prepare(CONFIG)


@pytest.mark.parametrize("cache", ["off", "memory", "disk"])
def test_a_corrupt_video(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = broken(image_root, tmp_path)
    video = next((root / "videos").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:500])
    with pytest.raises(GetiactionError, match=r"mp4 cannot be decoded for episode 0"):
        LeRobotDataModule(root=root, cache=cache).prepare(CONFIG)


def test_neither_or_both_sources_are_refused() -> None:
    with pytest.raises(GetiactionError, match="give either a dataset, or"):
        LeRobotDataModule()


@pytest.mark.parametrize("episodes", [[0, 3], [-1]])
def test_episodes_out_of_range_are_refused(state_root: Path, episodes: list[int]) -> None:
    with pytest.raises(
        GetiactionError, match=rf"\[{episodes[-1]}\] are out of range: .* 3, 0 to 2"
    ):
        LeRobotDataModule(root=state_root, episodes=episodes).prepare(CONFIG)
    with pytest.raises(GetiactionError, match="the list of episodes is empty"):
        _ = LeRobotDataModule(root=state_root, episodes=[]).train_dataset


@pytest.mark.parametrize(
    ("episodes", "says"),
    [
        ([1, 1], r"episodes \[1\] are given more than once"),
        ([0, 2, 0, 2, 1], r"episodes \[0, 2\] are given more than once"),
        ([0] * 100_000, r"episodes \[0\] are given more than once"),
        ([10**5000], r"episodes \[a huge number\] are out of range"),
        (list(range(100_000)), r"\[3, 4, 5, 6, 7, and 99992 more\] are out of range"),
        ([True, 0], "has True; expected integers, 0 to 2"),
        ([1.0], "has 1.0; expected integers"),
        (["0"], "has '0'; expected integers"),
        ([[0]], r"has \[0\]; expected integers"),
        ("01", "episodes is 01; expected a list of indices"),
        (1, "episodes is 1; expected a list of indices"),
    ],
)
@pytest.mark.parametrize("opened", [False, True])
def test_lists_that_are_none_of_episodes(
    state_root: Path, episodes: Any, says: str, opened: bool
) -> None:
    source: dict[str, Any] = {"root": state_root}
    if opened:
        source = {"dataset": LeRobotDataset("local/small", root=state_root)}
    with pytest.raises(GetiactionError, match=says) as error:
        LeRobotDataModule(**source, episodes=episodes).prepare(CONFIG)
    assert len(str(error.value)) < 300


def test_numpys_numbers_are_indices(state_root: Path) -> None:
    data = LeRobotDataModule(root=state_root, episodes=list(np.arange(2)))
    data.prepare(CONFIG)
    assert len(data.train_dataset) == 23


def test_episodes_of_a_given_dataset(state_root: Path) -> None:
    given = LeRobotDataset("local/small", root=state_root, episodes=[0, 2])
    data = LeRobotDataModule(dataset=given, episodes=[2])
    data.prepare(CONFIG)
    seen = torch.cat([batch["episode_index"] for batch in data.train_dataloader()])
    assert set(seen.tolist()) == {2}
    with pytest.raises(GetiactionError, match=r"opened without episodes \[1\]"):
        LeRobotDataModule(dataset=given, episodes=[1, 2])


def test_a_dataset_without_statistics(state_root: Path, tmp_path: Path) -> None:
    root = broken(state_root, tmp_path)
    (root / "meta/stats.json").unlink()
    with pytest.raises(GetiactionError, match="has no statistics of: observation.state, .*action;"):
        LeRobotDataModule(root=root).prepare(CONFIG)


def test_image_transforms_are_for_training_only(image_root: Path) -> None:
    def black(image: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(image)

    data = LeRobotDataModule(
        root=image_root, image_transforms=black, val_split=0.5, num_workers=0, gather=False
    )
    data.prepare(CONFIG)
    (held_out,) = data.val_dataloader()
    key = "observation.images.left"
    assert not next(iter(data.train_dataloader()))[key].any()
    assert next(iter(held_out))[key].any()


def test_frames_that_differ_from_time_to_time_are_not_kept(image_root: Path) -> None:
    data = LeRobotDataModule(root=image_root, image_transforms=torch.zeros_like, cache="disk")
    with pytest.raises(GetiactionError, match="cache='disk': image transforms differ from item"):
        data.prepare(CONFIG)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where LeRobot looks for datasets, and no network."""
    monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HOME", tmp_path)
    monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HUB_CACHE", tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_repo_id_opens_offline(state_root: Path, hub: Path) -> None:
    shutil.copytree(state_root, hub / "some/one")
    data = LeRobotDataModule(repo_id="some/one")
    assert len(data.train_dataset) == 34
    data.prepare(CONFIG)
    assert data.repo_id == "some/one"
    assert data.root is None
    assert len(data.train_dataset) == 34


def test_what_lerobot_fetched_earlier_opens_offline(state_root: Path, hub: Path) -> None:
    repo = hub / "hub/datasets--some--one"
    shutil.copytree(state_root, repo / "snapshots/0a1b")
    (repo / "refs").mkdir()
    (repo / "refs/v3.0").write_text("0a1b")
    for revision in (None, "v3.0", "0a1b"):
        assert LeRobotDataModule(repo_id="some/one", revision=revision).meta.total_episodes == 3
    with pytest.raises(GetiactionError, match="no dataset 'some/one'"):
        _ = LeRobotDataModule(repo_id="some/one", revision="v2.9").meta


def test_a_repo_id_that_is_not_here_offline(hub: Path) -> None:
    with pytest.raises(GetiactionError) as refused:
        _ = LeRobotDataModule(repo_id="some/one").meta
    assert str(refused.value) == (
        f"no dataset 'some/one' in {hub}, and HF_HUB_OFFLINE forbids fetching it; unset "
        f"that, or copy the dataset to {hub}/some/one"
    )


def test_a_hub_that_cannot_be_reached(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("no route to host\nand more of it")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(dataset_metadata, "get_safe_version", unreachable)
    with pytest.raises(GetiactionError) as refused:
        _ = LeRobotDataModule(repo_id="some/one").meta
    assert str(refused.value) == (
        "the dataset 'some/one' cannot be fetched from the hub: no route to host; it is not in "
        f"{hub} either"
    )
