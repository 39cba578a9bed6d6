import asyncio
import contextlib
import gc
import random
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from foundation.errors import UsageError
from positronic.errors import Busy, CheckpointError
from positronic.offboard.models.batching import Batching
from positronic.offboard.models.model import Model, UnfitModel
from positronic.offboard.models.store import Lease, ModelStore
from tests.positronic.offboard.loops import ask, happens, in_loop, settle, until
from tests.positronic.offboard.small_models import NBYTES, CountingPolicy, Source

A, B, C, D = "010000", "020000", "030000", "040000"


@pytest.fixture
def source() -> Source:
    return Source([A, B, C, D])


@pytest.fixture
def make(source: Source) -> Iterator[Any]:
    """Make stores that hold so many models, and close them."""
    with contextlib.ExitStack() as stack:

        def make_store(models: float = 2, default: str = A, **options: Any) -> ModelStore:
            store = ModelStore(source, default, memory_bytes=int(models * NBYTES), **options)
            stack.callback(store.close)
            return store

        yield make_store
        for gate in source.gates.values():
            gate.set()


def loaded(store: ModelStore) -> list[str]:
    return sorted(model.id for model in store.status() if model.state == "ready")


async def use(store: ModelStore, *names: str) -> None:
    """Sessions that begin and end, one after the other."""
    for name in names:
        (await store.acquire(name)).release()


async def infer(lease: Lease, grip: float) -> float:
    value = (await lease.batcher.predict({"grip": grip})).value
    assert isinstance(value, float)
    return value


def given_back(model: Model) -> bool:
    assert isinstance(model, CountingPolicy)
    return model.given_back


@in_loop
async def test_those_who_ask_for_one_model_share_its_load_and_who_gives_up_ends_nothing(
    source: Source, make: Any
) -> None:
    store: ModelStore = make()
    gate = source.hold(B)
    first, gone, last = (ask(store.acquire(B)) for _ in range(3))
    await until(lambda: source.loads == [B])
    assert not store.ready(B)
    gone.cancel()
    await settle()
    assert store.status()[0].sessions == 2
    gate.set()
    leases = await asyncio.gather(first, last)
    assert gone.cancelled()
    assert leases[0].model is leases[1].model
    assert store.ready(B)
    assert (await store.acquire(B)).model is leases[0].model
    assert source.loads == [B]
    assert await infer(leases[0], 0.5) == 0.5


@in_loop
async def test_a_load_that_fails_is_heard_of_by_all_who_wait_and_tried_anew(
    source: Source, make: Any
) -> None:
    store: ModelStore = make()
    source.broken[B] = ValueError("it is damaged")
    failed = await asyncio.gather(*[store.acquire(B) for _ in range(3)], return_exceptions=True)
    assert failed == [source.broken[B]] * 3
    assert source.loads == [B]
    assert store.status() == []
    source.broken.clear()
    assert (await store.acquire(B)).model.meta["checkpoint_id"] == B
    assert source.loads == [B, B]


@in_loop
async def test_a_load_fails_in_peace_when_nobody_is_left_to_hear_of_it(
    source: Source, make: Any
) -> None:
    store: ModelStore = make()
    gate = source.hold(B)
    source.broken[B] = ValueError("it is damaged")
    gone = ask(store.acquire(B))
    await until(lambda: source.loads == [B])
    gone.cancel()
    gate.set()
    await until(lambda: store.loading is None)
    assert store.status() == []


@in_loop
async def test_what_nobody_waits_for_any_more_is_not_loaded_when_its_turn_comes(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(4)
    gate = source.hold(A)
    first, gone, last = (ask(store.acquire(name)) for name in (A, B, C))
    await until(lambda: source.loads == [A])
    gone.cancel()
    gate.set()
    await asyncio.gather(first, last)
    assert source.loads == [A, C]
    assert loaded(store) == [A, C]


@in_loop
async def test_idle_models_go_least_recently_used_first_and_the_default_stays(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(3)
    await use(store, A, B, C, B, D)
    assert loaded(store) == [A, B, D]
    await use(store, C)
    assert loaded(store) == [A, C, D]
    # A session counts as use when it ends, too.
    long = await store.acquire(D)
    await use(store, C)
    long.release()
    await use(store, B)
    assert loaded(store) == [A, B, D]
    # The thread that closed the last one lets go of it by itself.
    await until(lambda: len(source.living) == 3)


@in_loop
async def test_a_model_in_use_is_never_evicted_and_what_does_not_fit_is_busy(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(3)
    b, c = await store.acquire(B), await store.acquire(C)
    again = await store.acquire(B)
    await use(store, A)
    with pytest.raises(Busy) as busy:
        await store.acquire(D)
    assert str(busy.value) == (
        f"checkpoint {D} takes 100 B and does not fit: of the 300 B that models may take,"
        f" sessions use {B}, {C}; try again when one has ended, or ask for one of these"
    )
    assert source.loads == [B, C, A]
    assert loaded(store) == [A, B, C]
    b.release()
    b.release()
    with pytest.raises(Busy):
        await store.acquire(D)
    again.release()
    await use(store, D)
    assert loaded(store) == [A, C, D]
    assert await infer(c, 0.25) == 0.25


@in_loop
async def test_nothing_is_evicted_in_vain(source: Source, make: Any) -> None:
    store: ModelStore = make(4)
    source.sizes[D] = 3 * NBYTES
    lease = await store.acquire(B)
    await use(store, A, C)
    with pytest.raises(Busy):
        await store.acquire(D)
    assert loaded(store) == [A, B, C]
    lease.release()
    await use(store, D)
    assert loaded(store) == [A, D]


@in_loop
async def test_what_can_never_fit_is_refused_as_such(source: Source, make: Any) -> None:
    store: ModelStore = make(2)
    source.sizes |= {B: 2 * NBYTES, C: 3 * NBYTES}
    await use(store, B)
    with pytest.raises(CheckpointError, match="takes 300 B, more than the 200 B that models may"):
        await store.acquire(C)
    await use(store, A)
    assert loaded(store) == [A]
    with pytest.raises(CheckpointError, match="takes 200 B beside the default's 100 B, more"):
        await store.acquire(B)
    assert source.loads == [B, A]


@in_loop
async def test_a_model_larger_than_was_said_makes_more_room_or_is_given_back(
    source: Source, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: ModelStore = make(4)
    source.sizes[D], source.estimates[D] = 3 * NBYTES, 0
    await use(store, A, B, D)
    assert loaded(store) == [A, D]
    assert [model.nbytes for model in store.status()] == [NBYTES, 3 * NBYTES]
    await use(store, B)
    assert loaded(store) == [A, B]
    lease = await store.acquire(B)
    source.estimates[C], source.sizes[C] = 0, 3 * NBYTES
    closed: list[str] = []
    monkeypatch.setattr(
        CountingPolicy, "close", lambda self: closed.append(self.meta["checkpoint_id"])
    )
    with pytest.raises(Busy, match=f"sessions use {B}"):
        await store.acquire(C)
    assert closed == [C]
    # Now that its size is known, it is refused before it is loaded.
    with pytest.raises(Busy, match=f"sessions use {B}"):
        await store.acquire(C)
    assert source.loads.count(C) == 1
    assert loaded(store) == [A, B]
    lease.release()


@in_loop
async def test_an_evicted_model_is_given_back_and_its_memory_is_free(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(2)

    async def session(name: str) -> "weakref.ref[Any]":
        lease = await store.acquire(name)
        asked = [infer(lease, grip) for grip in range(3)]
        assert await asyncio.gather(*asked) == [0, 1, 2]
        with contextlib.suppress(RuntimeError):
            await lease.batcher.predict({"grip": 0, "explode": True})
        lease.release()
        return weakref.ref(lease.model)

    await use(store, A)
    gc.disable()
    try:
        evicted = await session(B)
        model = evicted()
        assert model is not None
        del model
        await use(store, C)
        await until(lambda: evicted() is None)
    finally:
        gc.enable()
    lease = await store.acquire(C)
    lease.release()
    await use(store, D)
    assert given_back(lease.model)


@in_loop
async def test_a_model_is_not_given_back_while_it_predicts_for_a_client_that_left(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(2)
    await use(store, A)
    lease = await store.acquire(B)
    model = lease.model
    assert isinstance(model, CountingPolicy)
    gate = threading.Event()
    gone = ask(lease.batcher.predict({"grip": 0, "gate": gate}))
    await happens(model.entered)
    gone.cancel()
    lease.release()
    coming = ask(store.acquire(C))
    await until(lambda: not store.ready(B))
    assert not model.given_back
    assert C not in source.loads
    gate.set()
    await coming
    assert model.given_back


@in_loop
async def test_a_model_that_cannot_be_given_back_in_order_harms_nobody(
    source: Source, make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def close(self: CountingPolicy) -> None:
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(CountingPolicy, "close", close)
    store: ModelStore = make(2)
    await use(store, A, B, C)
    assert loaded(store) == [A, C]
    assert f"checkpoint {B} cannot be given back in order" in caplog.text


@in_loop
async def test_a_checkpoint_deleted_or_damaged_on_the_disk_does_not_hurt_what_is_loaded(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(2)
    a, b = await store.acquire(A), await store.acquire(B)
    source.names.remove(B)
    source.names.remove(C)
    source.broken |= dict.fromkeys((A, B), CheckpointError("it is damaged"))
    assert await infer(a, 0.5) == await infer(b, 0.5) == 0.5
    b.release()
    # What is gone is seen before anything is evicted for it.
    with pytest.raises(CheckpointError, match=f"Checkpoint not found: {C}"):
        await store.acquire(C)
    assert await infer(await store.acquire(A), 0.25) == 0.25
    assert await infer(await store.acquire(B), 0.25) == 0.25
    assert source.loads == [A, B]


@in_loop
async def test_who_waits_is_told_for_what(source: Source, make: Any) -> None:
    store: ModelStore = make(2)
    source.words[A] = "Exporting the policy..."
    a, b = source.hold(A), source.hold(B)
    asked = [ask(store.acquire(name)) for name in (A, B)]
    await until(lambda: source.loads == [A])
    await until(lambda: "Exporting" in store.progress(A)[1])
    assert store.loading == A
    assert store.progress(A) == ("loading", "Exporting the policy... (0 s)")
    waiting = f"Waiting for checkpoint {A} to finish loading... (0 s)"
    assert store.progress(B) == store.progress(C) == ("waiting", waiting)
    a.set()
    await until(lambda: source.loads == [A, B])
    assert store.progress(B) == ("loading", f"Loading checkpoint {B}... (0 s)")
    b.set()
    await asyncio.gather(*asked)
    assert store.loading is None


@in_loop
async def test_its_status_says_who_uses_what(source: Source, make: Any) -> None:
    store: ModelStore = make(2)
    lease = await store.acquire(A)
    gate = source.hold(B)
    source.estimates[B] = 77
    coming = ask(store.acquire(B))
    await until(lambda: source.loads == [A, B])
    predicting = threading.Event()
    asked = [ask(lease.batcher.predict({"grip": 0, "gate": predicting})) for _ in range(3)]
    assert isinstance(lease.model, CountingPolicy)
    await happens(lease.model.entered)
    a, b = store.status()
    assert (a.id, a.state, a.nbytes, a.sessions, a.waiting) == (A, "ready", NBYTES, 1, 2)
    assert a.meta["checkpoint_id"] == A
    assert (b.id, b.state, b.nbytes, b.sessions, b.waiting) == (B, "loading", 77, 1, 0)
    assert b.meta == {}
    assert b.last_used > a.last_used
    predicting.set()
    gate.set()
    await asyncio.gather(coming, *asked)
    lease.release()
    a, b = store.status()
    assert (a.sessions, b.state, b.nbytes) == (0, "ready", NBYTES)
    assert a.last_used > b.last_used


@in_loop
async def test_a_new_default_takes_over_while_sessions_go_on_with_the_old_one(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(2)
    old = await store.acquire(store.default)
    with pytest.raises(CheckpointError, match=f"{B} is not loaded"):
        store.promote(B)
    assert store.default == A
    await use(store, B)
    store.promote(B)
    assert store.default == B
    assert (await store.acquire(store.default)).model.meta["checkpoint_id"] == B
    assert await infer(old, 0.5) == 0.5
    with pytest.raises(Busy):
        await store.acquire(C)
    assert loaded(store) == [A, B]
    old.release()
    await use(store, C)
    assert loaded(store) == [B, C]


@in_loop
async def test_a_store_that_closes_refuses_everybody_and_gives_its_models_back(
    source: Source, make: Any
) -> None:
    store: ModelStore = make(3)
    lease = await store.acquire(A)
    model = lease.model
    assert isinstance(model, CountingPolicy)
    predicting, gate = threading.Event(), source.hold(B)
    running = ask(lease.batcher.predict({"grip": 0.5, "gate": predicting}))
    await happens(model.entered)
    loading, waiting = ask(store.acquire(B)), ask(store.acquire(C))
    await until(lambda: source.loads == [A, B])
    store.close()
    store.close()
    assert store.loading == B
    with pytest.raises(Busy, match="the server is stopping"):
        await store.acquire(A)
    with pytest.raises(Busy, match="the server is stopping"):
        await lease.batcher.predict({"grip": 0})
    assert given_back(model) is False
    predicting.set()
    assert (await running).value == 0.5
    await until(lambda: given_back(model))
    gate.set()
    for refused in (loading, waiting):
        with pytest.raises(Busy, match="the server is stopping"):
            await refused
    assert source.loads == [A, B]
    assert store.loading is None


@in_loop
async def test_the_batches_of_a_model_count_its_own_sessions(source: Source, make: Any) -> None:
    forever = Batching(window_s=3600)
    store: ModelStore = make(2, batching=forever)
    one, other = await store.acquire(A), await store.acquire(B)
    assert await infer(other, 1) == 1
    two = await store.acquire(A)
    asked = ask(infer(one, 1))
    await settle()
    assert one.batcher.waiting == 1
    assert [await infer(two, 2), await asked] == [2, 1]
    two.release()
    assert await infer(one, 3) == 3
    assert isinstance(one.model, CountingPolicy)
    assert one.model.batches == [[1, 2], [3]]


@in_loop
async def test_load_and_unload_under_stress(source: Source, make: Any) -> None:
    """Seeded sessions on six models of which three fit: none in use goes, none is there twice."""
    rng = random.Random(0)
    source.names[:] = [f"{i}0000" for i in range(1, 7)]
    source.sizes |= {name: rng.choice([60, 100, 140]) for name in source.names}
    store: ModelStore = make(3.5, default="10000", batching=Batching(window_s=0))
    outcomes: dict[str, int] = {"served": 0, "busy": 0, "left": 0, "broken": 0}

    async def session(number: int) -> None:
        name = rng.choice(source.names)
        try:
            async with asyncio.timeout(0 if rng.random() < 0.15 else None):
                lease = await store.acquire(name)
        except Exception as error:
            kind = {Busy: "busy", TimeoutError: "left", CheckpointError: "broken"}[type(error)]
            outcomes[kind] += 1
            return
        assert lease.model.meta["checkpoint_id"] == name
        for _ in range(rng.randrange(4)):
            # The model asserts that it was not given back.
            assert await infer(lease, number) == number
        lease.release()
        outcomes["served"] += 1

    async def robot(number: int) -> None:
        for _ in range(60):
            await session(number)
            present = store.status()
            assert sum(model.nbytes for model in present) <= store.memory_bytes
            name = rng.choice(source.names)
            if rng.random() < 0.1 and not source.broken.pop(name, None):
                source.broken[name] = CheckpointError("it is damaged")
            ready = [model.id for model in present if model.state == "ready"]
            if ready and rng.random() < 0.1:
                store.promote(rng.choice(ready))

    await asyncio.gather(*[robot(number) for number in range(8)])
    assert sum(outcomes.values()) == 480
    assert min(outcomes.values()) > 0
    assert outcomes["served"] > 100
    await until(lambda: store.loading is None)
    gc.collect()
    living = sorted(model.meta["checkpoint_id"] for model in source.living)
    assert living == loaded(store)
    assert [model.sessions for model in store.status()] == [0] * len(living)
    assert len(source.loads) > 20


@in_loop
async def test_sizes_are_said_for_people(source: Source, make: Any) -> None:
    source.sizes |= {B: 1_250_000_000, C: 85_400_000}
    for name, size in ((B, "1.25 GB"), (C, "85.4 MB")):
        with pytest.raises(
            CheckpointError, match=f"takes {size}, more .* larger --model_memory_gb"
        ):
            await make().acquire(name)


@pytest.mark.parametrize("memory_bytes", [0, -1])
def test_a_store_without_memory_is_refused(source: Source, memory_bytes: int) -> None:
    with pytest.raises(UsageError, match="expected more than none"):
        ModelStore(source, A, memory_bytes=memory_bytes)


@in_loop
async def test_where_the_default_is_unfit_the_newest_older_one_takes_its_place(
    source: Source, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source.broken = {D: UnfitModel("D is nothing for a robot"), C: UnfitModel("nor is C")}
    store = make(default=D, older=[C, B, A])
    (await store.acquire_default()).release()
    assert (store.default, source.loads) == (B, [D, C, B])
    told = [record for record in caplog.records if record.name.startswith("positronic.")]
    assert [record.getMessage() for record in told] == [
        "passed over: D is nothing for a robot",
        "passed over: nor is C",
    ]


@in_loop
async def test_without_an_older_one_or_with_another_fault_there_is_no_default(
    source: Source, make: Any
) -> None:
    source.broken = {D: UnfitModel("unfit"), C: CheckpointError("damaged")}
    with pytest.raises(UnfitModel):
        await make(default=D).acquire_default()
    with pytest.raises(CheckpointError, match="damaged"):
        await make(default=C, older=[B, A]).acquire_default()
