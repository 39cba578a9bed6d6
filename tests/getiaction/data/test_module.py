import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.datasets import LeRobotDataset
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from getiaction.data import DataModule, GatheredDataset, GymDataset, LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.gyms import PushTGym
from getiaction.policies.lerobot import policy_config
from tests.getiaction.datasets import FPS

ACT = policy_config("act", {"chunk_size": 5, "n_action_steps": 5})
DIFFUSION = policy_config("diffusion", {"horizon": 8, "n_action_steps": 4, "n_obs_steps": 2})


class Reader(LightningModule):
    """Asks for batches as a policy does, and keeps what it was given."""

    def __init__(self, config: Any = ACT) -> None:
        super().__init__()
        self.config = config
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Any]] = {}

    def keep(self, stage: str, batch: Any) -> torch.Tensor:
        self.seen.setdefault(stage, []).append(batch)
        return self.weight * 1

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.keep("train", batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.keep(f"val {dataloader_idx}", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.keep(f"test {dataloader_idx}", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.keep("predict", batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters())


def trainer(tmp_path: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **{"max_epochs": 1, **options},
    )


# Lightning's own Trainer has more to say than ours.
QUIET = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*across ranks is zero"),
]
pytestmark = QUIET


def indices(batches: list[Any]) -> list[int]:
    return [index for batch in batches for index in batch["index"].tolist()]


def test_a_data_module_around_another_ones_dataset(state_root: Path, tmp_path: Path) -> None:
    inner = LeRobotDataModule(root=state_root, train_batch_size=6)
    plain = inner.train_dataset
    assert isinstance(plain, LeRobotDataset)
    assert len(plain) == 34
    data = DataModule(train_dataset=plain, train_batch_size=6, val_gyms=PushTGym(), num_envs=4)
    assert data.train_dataset is plain
    module = Reader()
    trainer(tmp_path).fit(module, datamodule=data)
    inner.prepare(ACT)
    expected = list(inner.train_dataloader())
    assert indices(module.seen["train"]) == indices(expected)
    assert module.seen["train"][0]["action"].shape == (6, 5, 8)
    assert [batch.seeds for batch in module.seen["val 0"]] == [
        (1000, 1001, 1002, 1003),
        (1004, 1005, 1006, 1007),
        (1008, 1009),
    ]
    # The other one's dataset is as it was.
    assert plain.delta_timestamps is None
    assert plain[0]["action"].shape == (8,)
    assert data.repo_id == plain.repo_id
    assert data.root == plain.root


def test_a_dataset_held_as_arrays_is_opened_anew(state_root: Path) -> None:
    inner = LeRobotDataModule(root=state_root)
    inner.prepare(ACT)
    assert isinstance(inner.train_dataset, GatheredDataset)
    data = DataModule(LeRobotDataset("local/small", root=state_root), train_batch_size=4)
    data.prepare(DIFFUSION)
    batch = next(iter(data.train_dataloader()))
    assert batch["observation.state"].shape == (4, 2, 8)
    with pytest.raises(GetiactionError, match="delta_timestamps lack 'observation.state'"):
        DataModule(inner.train_dataset).prepare(DIFFUSION)


def test_another_policy_gets_other_samples(state_root: Path) -> None:
    data = LeRobotDataModule(root=state_root, train_batch_size=4)
    data.prepare(ACT)
    data.prepare(DIFFUSION)
    assert next(iter(data.train_dataloader()))["observation.state"].shape == (4, 2, 8)
    assert len(data.sampler) == 34 - 3 * DIFFUSION.drop_n_last_frames


def test_episodes_that_are_too_short_are_refused(state_root: Path) -> None:
    config = policy_config("diffusion", {"drop_n_last_frames": 27})
    with pytest.raises(GetiactionError, match="leaves out the last 27 frames of each episode"):
        LeRobotDataModule(root=state_root).prepare(config)


def test_any_torch_dataset_is_shuffled_by_seed_and_epoch(tmp_path: Path) -> None:
    dataset = TensorDataset(torch.arange(10))

    def order(seed: int) -> list[int]:
        module = Reader(config=None)
        data = DataModule(dataset, batch_size=4, seed=seed, val_dataset=dataset, num_workers=0)
        trainer(tmp_path).fit(module, datamodule=data)
        assert [batch[0].tolist() for batch in module.seen["val 0"]] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]
        return [index for batch in module.seen["train"] for index in batch[0].tolist()]

    assert sorted(order(1)) == list(range(10))
    assert order(1) == order(1) != order(2)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(5))


def test_a_stream_is_read_as_it_comes(tmp_path: Path) -> None:
    module = Reader(config=None)
    data = DataModule(Stream(), train_batch_size=2, num_workers=0)
    trainer(tmp_path).fit(module, datamodule=data)
    assert [batch.tolist() for batch in module.seen["train"]] == [[0, 1], [2, 3], [4]]


def test_each_stage_has_its_loaders(state_root: Path, tmp_path: Path) -> None:
    data = LeRobotDataModule(
        root=state_root,
        train_batch_size=6,
        val_split=0.5,
        val_gyms={"easy": PushTGym(), "hard": PushTGym()},
        num_rollouts_val=1,
        test_gyms="gym_pusht/PushT-v0",
        num_rollouts_test=2,
        max_episode_steps=7,
    )
    module = Reader()
    lightning = trainer(tmp_path)
    lightning.validate(module, datamodule=data, verbose=False)
    assert indices(module.seen["val 0"]) == list(range(23, 34))
    assert [batch.name for n in (1, 2) for batch in module.seen[f"val {n}"]] == ["easy", "hard"]
    # Nothing was opened that validation has no need of.
    assert isinstance(data.train_dataset, LeRobotDataset)
    lightning.test(module, datamodule=data, verbose=False)
    seeds = [(batch.seeds, batch.name, batch.max_steps) for batch in module.seen["test 0"]]
    assert seeds == [((100_000,), "", 7), ((100_001,), "", 7)]
    lightning.predict(module, datamodule=data)
    assert indices(module.seen["predict"]) == list(range(23, 34))


def test_prediction_goes_over_the_training_samples_if_nothing_is_held_out(
    state_root: Path, tmp_path: Path
) -> None:
    module = Reader()
    data = LeRobotDataModule(root=state_root, train_batch_size=6)
    trainer(tmp_path).predict(module, datamodule=data)
    assert indices(module.seen["predict"]) == list(range(34))


def test_fitting_needs_nothing_to_validate_on(state_root: Path, tmp_path: Path) -> None:
    module = Reader()
    data = LeRobotDataModule(root=state_root)
    trainer(tmp_path).fit(module, datamodule=data)
    assert set(module.seen) == {"train"}
    assert data.val_dataloader() == []
    with pytest.raises(GetiactionError, match="nothing to validate on: give .* val_gyms, val_spl"):
        trainer(tmp_path).validate(module, datamodule=data)
    with pytest.raises(GetiactionError, match="nothing to test on: give .* test_gyms"):
        trainer(tmp_path).test(module, datamodule=data)


def test_a_data_module_may_have_gyms_only(tmp_path: Path) -> None:
    module = Reader()
    data = DataModule(test_gyms=[PushTGym()], num_rollouts_test=1)
    lightning = trainer(tmp_path)
    lightning.test(module, datamodule=data, verbose=False)
    (batch,) = module.seen["test 0"]
    assert batch.seeds == (100_000,)
    with pytest.raises(GetiactionError, match="no LeRobotDataset from which"):
        _ = data.meta
    with pytest.raises(GetiactionError, match="nothing to train on: give .* train_dataset"):
        lightning.fit(module, datamodule=data)


def test_held_out_samples_may_be_a_dataset_of_their_own(state_root: Path) -> None:
    held_out = LeRobotDataset("local/small", root=state_root, episodes=[1])
    data = LeRobotDataModule(root=state_root, episodes=[0, 2], val_dataset=held_out)
    data.prepare(DIFFUSION)
    (loader,) = data.val_dataloader()
    batches = list(loader)
    assert batches[0]["observation.state"].shape == (8, 2, 8)
    assert indices(batches) == list(range(9, 23))
    seen = torch.cat([batch["episode_index"] for batch in data.train_dataloader()])
    assert set(seen.tolist()) == {0, 2}


def test_lightning_may_overfit_and_tune(state_root: Path, tmp_path: Path) -> None:
    module = Reader()
    data = LeRobotDataModule(root=state_root, batch_size=6)
    trainer(tmp_path, overfit_batches=2, max_epochs=2).fit(module, datamodule=data)
    assert indices(module.seen["train"]) == 2 * list(range(12))
    data.batch_size *= 2
    assert data.train_batch_size == 12
    assert data.train_dataloader().batch_sampler.batch_size == 12  # type: ignore[union-attr]


def test_a_policy_without_a_lerobot_config_needs_delta_timestamps(
    state_root: Path, tmp_path: Path
) -> None:
    module = Reader(config=None)
    with pytest.raises(GetiactionError, match="needs a LeRobot policy to know which frames"):
        trainer(tmp_path).fit(module, datamodule=LeRobotDataModule(root=state_root))
    deltas = {"action": [0.0, 1 / FPS]}
    data = LeRobotDataModule(root=state_root, delta_timestamps=deltas)
    trainer(tmp_path).fit(module, datamodule=data)
    assert module.seen["train"][0]["action"].shape == (8, 2, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4, "train_batch_size": 4}, "batch_size is an alias"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"val_split": 1.0}, "val_split is 1.0; expected a share"),
        ({"val_split": 0.5, "val_dataset": TensorDataset()}, "either val_dataset or val_split"),
        ({"cache": "ram"}, "cache is 'ram'; expected one of auto, off, memory, disk"),
        ({"num_envs": 0}, "num_envs is 0; expected at least 1"),
        ({"num_rollouts_test": 0}, "num_rollouts_test is 0; expected at least 1"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GetiactionError, match=message):
        DataModule(**options)


def test_a_dataset_without_statistics_is_refused(state_root: Path) -> None:
    dataset = LeRobotDataset("local/small", root=state_root)
    del dataset.meta.stats["action"]
    with pytest.raises(GetiactionError, match=r"has no statistics of: action; policies norm"):
        _ = DataModule(dataset).meta
    dataset.meta.stats = None
    with pytest.raises(GetiactionError, match=r"has no statistics of: observation.state, obs"):
        _ = DataModule(dataset).meta


def test_the_given_datasets_statistics_stay_as_they_are(image_root: Path) -> None:
    dataset = LeRobotDataset("local/small", root=image_root)
    before = json.dumps(dataset.meta.stats, default=repr)
    meta = DataModule(dataset).meta
    assert meta.stats["observation.images.left"]["mean"].ravel()[0] == pytest.approx(0.485)
    assert json.dumps(dataset.meta.stats, default=repr) == before


def test_other_datasets_have_no_metadata() -> None:
    other: Dataset[Any] = TensorDataset(torch.zeros(3))
    with pytest.raises(GetiactionError, match="there is no LeRobotDataset from which the"):
        _ = DataModule(other).meta
    with pytest.raises(GetiactionError, match="val_split holds out episodes of a LeRobotData"):
        DataModule(other, val_split=0.5).prepare(ACT)


def test_lightnings_own_sharding_on_top_is_refused(state_root: Path, tmp_path: Path) -> None:
    data = LeRobotDataModule(root=state_root)
    data.trainer = trainer(tmp_path, devices=2, strategy="ddp_spawn")
    with pytest.raises(GetiactionError, match="with use_distributed_sampler=False"):
        data.setup("fit")


def test_frames_stay_bytes_whoever_opened_the_dataset(image_root: Path) -> None:
    data = DataModule(LeRobotDataset("local/small", root=image_root), train_batch_size=28)
    data.prepare(ACT)
    (ours,) = data.train_dataloader()
    own = LeRobotDataModule(root=image_root, train_batch_size=28)
    own.prepare(ACT)
    (expected,) = own.train_dataloader()
    key = "observation.images.left"
    assert ours[key].dtype == torch.uint8
    assert torch.equal(ours[key], expected[key])


def test_the_dataset_of_a_rollout_loader_is_known(tmp_path: Path) -> None:
    (loader,) = DataModule(val_gyms="CartPole-v1").val_dataloader()
    assert isinstance(loader.dataset, GymDataset)
    assert loader.dataset.name == ""
