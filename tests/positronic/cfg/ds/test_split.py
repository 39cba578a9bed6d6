from pathlib import Path

import pytest

from foundation.errors import UsageError
from positronic.cfg.ds.split import masked
from positronic.dataset import DatasetWriter, load_all_datasets
from positronic.errors import DatasetError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    writer = DatasetWriter(tmp_path / "raw")
    for number in range(4):
        with writer.new_episode() as episode:
            episode.set_static("number", number)
            episode.set_static("mask.train", number % 2 == 1)
            episode.append("grip", 1.0, 0)
    return tmp_path / "raw"


def test_only_the_episodes_of_the_mask_remain(root: Path) -> None:
    dataset = masked.override(path=str(root), mask="train").instantiate()
    assert [episode["number"] for episode in dataset] == [1, 3]
    half = load_all_datasets(root)[:2]
    assert [episode["number"] for episode in masked(dataset=half, mask="train")] == [1]


def test_a_mask_wants_one_dataset(root: Path) -> None:
    for given in ({}, {"path": str(root), "dataset": str(root)}):
        with pytest.raises(UsageError, match="give either --dataset.path"):
            masked(mask="train", **given)


def test_an_unknown_mask_is_refused_with_those_there_are(root: Path) -> None:
    config = masked.override(path=str(root), mask="valid")
    with pytest.raises(Exception, match=r"mask\.valid; .* are: train") as raised:
        config.instantiate()
    assert isinstance(raised.value, DatasetError) or isinstance(
        raised.value.__cause__, DatasetError
    )
