from typing import Any

import pytest

from foundation.errors import UsageError
from positronic.dataset import Dataset, LocalDataset
from positronic.dataset.subsets import share_of, split, where
from positronic.errors import DatasetError

from .conftest import record


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("raw")
    for i in range(6):
        statics: dict[str, Any] = {"extra": ["a", i]} if i == 5 else {}
        record(root, frames=1, n=i, task="ab"[i % 2], ok=i > 2, text=str(i), **statics)
    return LocalDataset(root)


def numbers(dataset: Dataset) -> list[int]:
    return [episode["n"] for episode in dataset]


def test_by_static_values(dataset: Dataset) -> None:
    assert numbers(where(dataset, {"task": "b"})) == [1, 3, 5]
    assert numbers(where(dataset, {"task": "b", "ok": True})) == [3, 5]
    assert numbers(where(dataset, {"n": [4, 0, 17]})) == [0, 4]
    assert numbers(where(dataset, {"text": 3})) == [3]
    assert numbers(where(dataset, {"extra": ["a", 5]})) == [5]
    assert numbers(where(dataset, {"extra": None})) == [0, 1, 2, 3, 4]
    assert numbers(where(dataset, {"n": 1.0})) == [1]


def test_what_is_not_there_is_named_with_what_is(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"task='c'; its values are 'a' \(3\), 'b' \(3\)"):
        where(dataset, {"task": "c"})
    with pytest.raises(DatasetError, match="none of them has a static value 'tusk'$"):
        where(dataset, {"tusk": "a"})
    with pytest.raises(DatasetError, match=r"n=0 among those with task='b'; its values are 1 \(1"):
        where(dataset, {"task": "b", "n": 0})
    with pytest.raises(DatasetError, match=r"ok=1; its values are False \(3\), True \(3\)"):
        where(dataset, {"ok": 1})


def test_choosing_reads_no_signal(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", None)
    monkeypatch.setattr("av.open", None)
    assert len(where(split(dataset, 0.2, 0)[0], {"task": ["a", "b"]})) == 5


def test_a_share(dataset: Dataset) -> None:
    half = numbers(share_of(dataset, 0.5, seed=1))
    assert len(half) == 3
    assert half == sorted(half) == numbers(share_of(dataset, 0.5, seed=1))
    assert set(half) < set(numbers(share_of(dataset, 0.8, seed=1)))
    assert len({tuple(numbers(share_of(dataset, 0.5, seed=s))) for s in range(8)}) > 3
    assert len(share_of(dataset, 0.001, seed=1)) == 1
    assert numbers(share_of(dataset, 1, seed=1)) == [0, 1, 2, 3, 4, 5]
    for share in (0, -1, 1.1):
        with pytest.raises(UsageError, match="expected more than 0 and at most 1"):
            share_of(dataset, share, 1)


def test_split_parts_are_disjoint_and_together_all(dataset: Dataset) -> None:
    for seed in range(4):
        train, val = (numbers(part) for part in split(dataset, 0.34, seed))
        assert (len(train), len(val)) == (4, 2)
        assert sorted(train + val) == [0, 1, 2, 3, 4, 5]
        assert (train, val) == (sorted(train), sorted(val))
    assert len({tuple(numbers(split(dataset, 0.34, s)[1])) for s in range(8)}) > 2
    assert [len(part) for part in split(dataset, 0.999, 0)] == [1, 5]
    assert [len(part) for part in split(dataset, 0.001, 0)] == [5, 1]
    with pytest.raises(UsageError, match="val_share=1"):
        split(dataset, 1, 0)
    with pytest.raises(DatasetError, match="one episode cannot be split"):
        split(dataset[:1], 0.5, 0)
