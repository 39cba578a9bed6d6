from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.dataset import Episode, LocalDataset
from positronic.dataset.decoder import Decoder
from positronic.dataset.transforms import (
    DerivedDataset,
    DerivedEpisode,
    concatenate,
    map_images,
    map_values,
    rename,
    select,
)

from .conftest import NS, number_of, record


@pytest.fixture
def dataset(tmp_path: Path) -> LocalDataset:
    for task in "ab":
        record(tmp_path, frames=31, task=task)
    return LocalDataset(tmp_path)


def test_derived_items(dataset: LocalDataset) -> None:
    def twice(episode: Episode) -> Mapping[str, Any]:
        doubled = map_values(episode["q"], lambda v: v[:, :2] * 2)
        return {"double": doubled, "task": episode["task"].upper()}

    derived = DerivedDataset(dataset, twice)
    assert len(derived) == 2
    episode = derived[1]
    assert list(episode) == ["double", "task"]
    assert episode["task"] == "B"
    assert episode.time[NS]["double"].tolist() == [30.0, 30.0]
    assert (episode["double"].shape, episode["double"].dtype) == ((2,), np.float32)
    assert (episode.start_ts, episode.last_ts) == (0, 2 * NS)
    assert episode.meta == dataset[1].meta
    assert [e["task"] for e in derived[:]] == ["A", "B"]


def test_keep_the_rest(dataset: LocalDataset) -> None:
    episode = DerivedDataset(dataset, lambda e: {"task": "new", "q": 7}, keep=True)[0]
    assert sorted(episode) == ["grip", "image.wrist", "q", "task"]
    assert (episode["task"], episode["q"]) == ("new", 7)
    assert list(episode.signals) == ["grip", "image.wrist"]


def test_transform_is_called_once_and_late(dataset: LocalDataset) -> None:
    calls = []

    def count(episode: Episode) -> Mapping[str, Any]:
        calls.append(episode)
        return {"grip": episode["grip"]}

    episode = DerivedEpisode(dataset[0], count)
    assert calls == []
    episode["grip"], episode.static, episode.signals
    assert len(calls) == 1


def test_select_and_rename(dataset: LocalDataset) -> None:
    assert list(DerivedEpisode(dataset[0], select("q", "task"))) == ["q", "task"]
    with pytest.raises(KeyError, match="'x' is not in this episode"):
        list(DerivedEpisode(dataset[0], select("x")))
    renamed = DerivedEpisode(dataset[0], rename(target_grip="grip", absent="nowhere"))
    assert sorted(renamed) == ["image.wrist", "q", "target_grip", "task"]
    assert renamed["target_grip"].time[NS] == (15.0, NS)
    swapped = DerivedEpisode(dataset[0], rename(q="grip", grip="q"))
    assert swapped["q"].shape == ()
    with pytest.raises(ValueError, match="has both"):
        list(DerivedEpisode(dataset[0], rename(q="grip")))


def test_mapped_values_are_read_only_where_asked(dataset: LocalDataset) -> None:
    sizes = []

    def seen(values: NDArray[Any]) -> NDArray[Any]:
        sizes.append(len(values))
        return values + 1

    signal = map_values(dataset[0]["grip"], seen)
    assert (len(signal), signal.start_ts, signal.last_ts) == (31, 0, 2 * NS)
    assert sizes == []
    assert signal.time[NS] == (16.0, NS)
    assert signal.time[0 : 2 * NS : NS].values().tolist() == [1.0, 16.0]
    assert sizes == [1, 2]


def test_mapped_images_are_lazy(dataset: LocalDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "frame", None)
        signal = map_images(dataset[0]["image.wrist"], lambda image: image[::2, ::2])
        values = signal.time[0 : 2 * NS : NS].values()
        assert len(values) == 2
    assert (signal.kind, signal.shape, signal.dtype) == ("video", (24, 32, 3), np.dtype(np.uint8))
    assert [number_of(image) for image in values] == [0, 15]
    assert number_of(values[1:][0]) == 15
    assert values[1].shape == (24, 32, 3)


def test_concatenate(dataset: LocalDataset) -> None:
    episode = dataset[0]
    late = episode["grip"].time[NS + 1 :]
    joined = concatenate(episode["q"], late)
    assert (joined.shape, joined.dtype) == ((8,), np.dtype(np.float64))
    assert joined.start_ts == NS + 1
    assert joined[0][0].tolist() == [15.0] * 8
    assert joined.time[2 * NS][0].tolist() == [30.0] * 8
    with pytest.raises(ValueError, match="nothing"):
        concatenate()
