import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, get_ident
from typing import Any

import pytest
import torch

from getiaction.data import LeRobotDataModule
from getiaction.data.gather import Cache, GatheredDataset
from getiaction.data.loaders import AHEAD, prefetched
from getiaction.policies.lerobot import policy_config
from getiaction.train.exact_resume import random_state
from tests.getiaction.train.resumable import run

CONFIG = policy_config("act", {"chunk_size": 5, "n_action_steps": 5})


def test_things_come_in_order_whichever_is_made_first() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    made = list(prefetched(slow_at_first, range(20), threads=3, ahead=6))
    assert made == [number * number for number in range(20)]


def test_no_more_is_begun_than_may_be_ahead() -> None:
    wanted: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            wanted.append(number)
            yield number

    batches = prefetched(lambda number: number, numbers(), threads=2, ahead=4)
    assert wanted == []
    assert next(batches) == 0
    assert wanted == [0, 1, 2, 3, 4]
    assert next(batches) == 1
    assert len(wanted) == 6
    batches.close()  # type: ignore[attr-defined]
    assert len(wanted) == 6


def test_an_error_comes_in_its_place_and_ends_it() -> None:
    def unlucky(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    batches = prefetched(unlucky, range(100), threads=2, ahead=8)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(batches)
    assert list(batches) == []


def test_threads_work_while_the_caller_does_not() -> None:
    second = Event()
    threads = set()

    def make(number: int) -> int:
        threads.add(get_ident())
        if number == 1:
            second.set()
        return number

    batches = prefetched(make, range(3), threads=1, ahead=2)
    next(batches)
    assert second.wait(timeout=10)
    assert get_ident() not in threads
    batches.close()  # type: ignore[attr-defined]


def loader(root: Path, cache: Cache) -> Any:
    data = LeRobotDataModule(root=root, train_batch_size=6, cache=cache)
    data.prepare(CONFIG)
    return data.train_dataloader()


def test_batches_decoded_ahead_are_the_same_and_draw_the_same(image_root: Path) -> None:
    epochs = {}
    for cache in ("off", "memory"):
        torch.manual_seed(5)
        batches = loader(image_root, cache)
        epochs[cache] = [*batches, *batches], random_state()["torch"]
    (ours, drawn), (held, drawn_by_torch) = epochs["off"], epochs["memory"]
    assert len(ours) == len(held) == 10
    for batch, other in zip(ours, held, strict=True):
        assert list(batch) == list(other)
        for key, value in batch.items():
            same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            assert same(value, other[key]), key
    assert torch.equal(drawn, drawn_by_torch)


def test_a_loader_knows_what_was_taken_not_what_was_decoded(
    image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    gather = GatheredDataset.__getitems__

    def noted(self: GatheredDataset, indices: Any) -> Any:
        decoded.append(indices)
        return gather(self, indices)

    monkeypatch.setattr(GatheredDataset, "__getitems__", noted)
    first = loader(image_root, "off")
    batches = iter(first)
    taken = [next(batches)["index"].tolist() for _ in range(2)]
    state = first.state_dict()
    assert state == {"epoch": 0, "taken": 2, "first_epoch": 0}
    # It decodes ahead by itself, in its own time.
    until = time.monotonic() + 30
    while len(decoded) <= 2 and time.monotonic() < until:
        time.sleep(0.01)
    batches.close()
    assert 2 < len(decoded) <= 2 + AHEAD
    fresh = loader(image_root, "off")
    fresh.load_state_dict(state)
    rest = [batch["index"].tolist() for batch in fresh]
    whole = [batch["index"].tolist() for batch in loader(image_root, "memory")]
    assert taken + rest == whole


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_run_that_decodes_ahead_goes_on_exactly(image_root: Path, tmp_path: Path) -> None:
    limits = {"max_epochs": 2}
    whole = run(image_root, tmp_path / "whole", limits=limits, cache="off")
    assert len(whole) == 10
    checkpoint = tmp_path / "whole/step=3.ckpt"
    rest = run(image_root, tmp_path / "rest", resume_from=checkpoint, limits=limits, cache="off")
    assert rest == whole[3:]
