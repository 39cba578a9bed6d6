from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torchvision.models._api
from lerobot.configs import NormalizationMode
from lerobot.datasets import LeRobotDatasetMetadata

from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import ACT
from getiaction.train import Trainer
from tests.getiaction.train.runs import SMALL

DEFAULT_MAPPING = {k: v for k, v in SMALL.items() if k != "normalization_mapping"}


def metadata(root: Path) -> Any:
    return LeRobotDatasetMetadata("local/small", root=root)


def test_environment_state_is_normalised_unasked(state_root: Path) -> None:
    module = ACT(**DEFAULT_MAPPING).create(metadata(state_root))
    assert module.config.normalization_mapping["ENV"] is NormalizationMode.MEAN_STD


def test_environment_state_is_left_alone_when_told(state_root: Path) -> None:
    mapping = {"STATE": "MEAN_STD", "ACTION": "MEAN_STD", "ENV": "IDENTITY"}
    module = ACT(**DEFAULT_MAPPING, normalization_mapping=mapping).create(metadata(state_root))
    assert module.config.normalization_mapping["ENV"] is NormalizationMode.IDENTITY


def test_a_dataset_without_statistics_is_refused(state_root: Path) -> None:
    meta = metadata(state_root)
    del meta.stats["observation.state"]
    with pytest.raises(GetiactionError, match="no statistics of: observation.state"):
        ACT(**SMALL).create(meta)


def test_backbone_weights_that_cannot_be_had(
    image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    weights = "ResNet18_Weights.IMAGENET1K_V1"
    module = ACT(**{**SMALL, "pretrained_backbone_weights": weights})
    with pytest.raises(GetiactionError, match=r"no network.*by pretrained_backbone_weights=None"):
        module.create(metadata(image_root))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_fitting_without_a_dataset_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(GetiactionError, match="LeRobotDataModule"):
        trainer.fit(ACT(**SMALL), train_dataloaders=[{}])
