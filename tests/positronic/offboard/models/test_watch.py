import asyncio
import contextlib
import gc
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from positronic.errors import Busy, CheckpointError
from positronic.offboard.models.store import ModelStore
from positronic.offboard.models.watch import MAX_PAUSE_S, Watcher, watch
from tests.positronic.offboard.loops import ask, in_loop, until
from tests.positronic.offboard.running import ask as infer
from tests.positronic.offboard.running import get, raw, ready, serving
from tests.positronic.offboard.small_models import NBYTES, Source
from tests.waiting import until as until_sync

A, B, C, D = "010000", "020000", "030000", "040000"

Changes = list[tuple[str | None, Exception | None]]


@pytest.fixture
def source() -> Source:
    return Source([A])


@pytest.fixture
def store(source: Source) -> Iterator[ModelStore]:
    store = ModelStore(source, A, memory_bytes=2 * NBYTES)
    yield store
    for gate in source.gates.values():
        gate.set()
    store.close()


class Hand:
    """Looks when the test says so, at a clock that the test sets."""

    def __init__(self, store: ModelStore, interval_s: float = 10.0) -> None:
        self.now = 0.0
        self.changes: Changes = []
        self._watcher = Watcher(
            store, interval_s, lambda *change: self.changes.append(change), lambda: self.now
        )

    async def look(self, after: float = 0.0) -> Changes:
        """Return what is reported by one look more."""
        self.now += after
        before = len(self.changes)
        await self._watcher.look()
        return self.changes[before:]


@in_loop
async def test_a_new_checkpoint_takes_over_once_it_is_warm_and_sessions_keep_theirs(
    source: Source, store: ModelStore
) -> None:
    hand = Hand(store)
    old = await store.acquire(store.default)
    assert await hand.look() == []
    source.names.append(B)
    gate = source.hold(B)
    looking = ask(hand.look())
    await until(lambda: source.loads == [A, B])
    # Meanwhile all goes on with the old one.
    assert store.default == A
    during = await store.acquire(store.default)
    assert (await during.batcher.predict({"grip": 0.5})).value == 0.5
    during.release()
    gate.set()
    assert await looking == [(B, None)]
    assert store.default == B
    assert store.ready(B)
    assert (await old.batcher.predict({"grip": 0.25})).value == 0.25
    assert [(model.id, model.sessions) for model in store.status()] == [(A, 1), (B, 0)]
    assert await hand.look() == []
    assert source.loads == [A, B]
    # The old one may go when nobody uses it any more, and goes when room is needed.
    source.names.append(C)
    [(failed, error)] = await hand.look()
    assert failed == C
    assert isinstance(error, Busy)
    assert await hand.look() == []
    old.release()
    # Without a pause: it was not even loaded.
    assert await hand.look() == [(C, None)]
    assert source.loads == [A, B, C]
    assert [model.id for model in store.status()] == [B, C]


@in_loop
async def test_of_several_new_ones_the_newest_is_taken(source: Source, store: ModelStore) -> None:
    source.names += [B, C]
    assert await Hand(store).look() == [(C, None)]
    assert source.loads == [C]


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the project logged; another test of this process may have had all of asyncio's shown."""
    return [record for record in caplog.records if record.name.startswith("positronic.")]


@in_loop
async def test_a_failed_one_leaves_the_old_one_is_reported_once_and_tried_ever_more_rarely(
    source: Source, store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    hand = Hand(store, interval_s=10)
    (await store.acquire(A)).release()
    source.names.append(B)
    source.broken[B] = CheckpointError("checkpoint 020000 is damaged")
    assert await hand.look() == [(B, source.broken[B])]
    assert store.default == A
    assert store.ready(A)
    tried = [hand.now]
    for _ in range(10_000):
        if len(tried) == 10:
            break
        loads = source.loads.count(B)
        assert await hand.look(after=5) == []
        if source.loads.count(B) > loads:
            tried.append(hand.now)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert pauses == [10, 20, 40, 80, 160, 320, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]
    assert [record.getMessage() for record in ours(caplog)] == [
        f"checkpoint {B} cannot be taken up, {A} stays the default: checkpoint {B} is damaged"
    ]
    source.broken.clear()
    assert await hand.look(after=MAX_PAUSE_S) == [(B, None)]
    assert store.default == B


@in_loop
async def test_a_failed_one_is_tried_at_once_when_the_list_changes(
    source: Source, store: ModelStore
) -> None:
    hand = Hand(store)
    source.names.append(B)
    source.broken[B] = CheckpointError("it is damaged")
    await hand.look()
    await hand.look(after=10)
    assert source.loads == [B, B]
    assert await hand.look() == []
    assert source.loads == [B, B]
    source.names.insert(0, "005000")
    assert await hand.look() == []
    assert source.loads == [B, B, B]
    # And the pauses begin anew.
    assert await hand.look(after=9) == []
    assert source.loads == [B, B, B]
    assert await hand.look(after=1) == []
    assert source.loads == [B, B, B, B]
    source.names.append(C)
    assert await hand.look() == [(C, None)]


@in_loop
async def test_another_failure_of_the_same_one_is_reported_too(
    source: Source, store: ModelStore
) -> None:
    hand = Hand(store)
    source.names.append(B)
    for error in (CheckpointError("it is damaged"), MemoryError("no more"), OSError("gone")):
        source.broken[B] = error
        assert await hand.look(after=1000) == [(B, error)]


@in_loop
async def test_a_list_that_cannot_be_had_is_reported_once_and_asked_for_again(
    source: Source, store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    hand = Hand(store)
    source.names.clear()
    [(nothing, error)] = await hand.look()
    assert nothing is None
    assert isinstance(error, OSError)
    assert await hand.look() == await hand.look() == []
    [record] = ours(caplog)
    assert record.getMessage() == (
        f"cannot list checkpoints, {A} stays the default: the disk is gone"
    )
    assert not record.exc_info
    source.names[:] = [A]
    assert await hand.look() == []
    source.names.clear()
    assert len(await hand.look()) == 1
    source.names[:] = [A, B]
    assert await hand.look() == [(B, None)]


@in_loop
async def test_a_list_without_checkpoints_leaves_the_default(
    source: Source, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(store)
    monkeypatch.setattr(source, "ids", list)
    [(nothing, error)] = await hand.look()
    assert nothing is None
    assert str(error) == "there are no checkpoints any more; those loaded stay"
    assert store.default == A


@in_loop
async def test_when_the_default_is_deleted_none_that_is_older_takes_its_place(
    source: Source, store: ModelStore
) -> None:
    source.names[:] = [A, B]
    hand = Hand(store)
    assert await hand.look() == [(B, None)]
    source.names.remove(B)
    assert await hand.look(after=1000) == []
    assert store.default == B
    source.names.append(C)
    source.broken[C] = CheckpointError("it is damaged")
    assert await hand.look() == [(C, source.broken[C])]
    source.broken.clear()
    assert await hand.look(after=1000) == [(C, None)]


@in_loop
async def test_what_nobody_expected_is_logged_with_its_traceback(
    source: Source, store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    hand = Hand(store)
    source.names.append(B)
    source.broken[B] = ZeroDivisionError("oops")
    assert await hand.look() == [(B, source.broken[B])]
    assert "Traceback" in caplog.text


@in_loop
async def test_it_looks_again_and_again_until_it_is_cancelled(
    source: Source, store: ModelStore
) -> None:
    changes: asyncio.Queue[Any] = asyncio.Queue()
    watching = ask(watch(store, 0.001, lambda *change: changes.put_nowait(change)))
    for name in (B, C):
        source.names.append(name)
        assert await changes.get() == (name, None)
        assert store.default == name
    source.names.append(D)
    gate = source.hold(D)
    await until(lambda: D in source.loads)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    gate.set()
    await until(lambda: store.ready(D))
    assert store.default == C


def wait_for_default(port: int, name: str) -> None:
    def is_default() -> bool:
        models = get(port, "/api/v1/status")[1]["models"]
        return [model["id"] for model in models if model["default"]] == [name]

    until_sync(is_default, f"{name} to become the default")


def test_a_server_that_takes_up_new_checkpoints_keeps_nothing_of_the_old_ones(
    source: Source,
) -> None:
    with serving(source, memory_bytes=2 * NBYTES, watch_interval_s=0.01) as port:
        with raw(port) as old:
            assert ready(old)["checkpoint_id"] == A
            source.names.append(B)
            wait_for_default(port, B)
            with raw(port) as new:
                assert ready(new)["checkpoint_id"] == B
            assert infer(old, grip=0)["result"]
        source.names.append(C)
        wait_for_default(port, C)
        gc.collect()
        assert sorted(model.meta["checkpoint_id"] for model in source.living) == [B, C]
