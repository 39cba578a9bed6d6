import asyncio
import contextlib
import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from foundation.errors import UsageError
from positronic.errors import Busy
from positronic.offboard.models.batching import Batcher, Batching, Predicted
from tests.positronic.offboard.loops import ask, happens, in_loop, settle
from tests.positronic.offboard.small_models import CountingPolicy

FOREVER_S = 3600.0


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def model() -> CountingPolicy:
    return CountingPolicy("010000")


def batcher(
    model: CountingPolicy, executor: ThreadPoolExecutor, sessions: int = 1, **batching: Any
) -> Batcher:
    limits = Batching(**{"window_s": FOREVER_S, **batching})
    return Batcher(model, executor, limits, open_sessions=lambda: sessions)


def gated(grip: float) -> tuple[dict[str, Any], threading.Event]:
    gate = threading.Event()
    return {"grip": grip, "gate": gate}, gate


@in_loop
async def test_one_session_alone_never_waits_for_others(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    one = batcher(model, executor, sessions=1)
    for grip in (0.25, 0.5):
        assert (await one.predict({"grip": grip})).value == grip
    assert model.batches == [[0.25], [0.5]]


@in_loop
async def test_a_batch_starts_when_every_session_waits(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    four = batcher(model, executor, sessions=4)
    asked = [ask(four.predict({"grip": grip})) for grip in range(3)]
    await settle()
    assert four.waiting == 3
    asked.append(ask(four.predict({"grip": 3})))
    answers = await asyncio.gather(*asked)
    assert [answer.value for answer in answers] == [0, 1, 2, 3]
    assert {answer.batch_size for answer in answers} == {4}
    assert model.batches == [[0, 1, 2, 3]]
    assert four.waiting == 0


@in_loop
async def test_a_request_waits_no_longer_than_the_window(
    model: CountingPolicy, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    timers: list[tuple[float, Any]] = []
    real = loop.call_later

    def call_later(delay: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timers.append((delay, lambda: callback(*args)))
        return real(FOREVER_S, callback, *args, **kwargs)

    three = batcher(model, executor, sessions=3, window_s=7.0)
    monkeypatch.setattr(loop, "call_later", call_later)
    request, gate = gated(1)
    asked = [ask(three.predict(request)), ask(three.predict({"grip": 2}))]
    await settle()
    # One timer, which counts from the first of those who wait.
    [(delay, over)] = timers
    assert 6.9 < delay <= 7.0
    assert model.batches == []
    over()
    await happens(model.entered)
    # Who waits while a batch runs gives those a window to ask again who are answered by it.
    asked.append(ask(three.predict({"grip": 3})))
    await settle()
    await asyncio.to_thread(time.sleep, 0.2)
    gate.set()
    assert [answer.value for answer in await asyncio.gather(*asked[:2])] == [1, 2]
    [_, (delay, over)] = timers
    assert 6.9 < delay <= 7.0
    over()
    assert (await asked[2]).value == 3
    assert model.batches == [[1, 2], [3]]


@in_loop
async def test_no_batch_is_larger_than_max_batch_and_the_first_come_first(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    many = batcher(model, executor, sessions=20, max_batch=4, window_s=0)
    request, gate = gated(0)
    asked = [ask(many.predict(request))]
    await happens(model.entered)
    asked += [ask(many.predict({"grip": grip})) for grip in range(1, 11)]
    await settle()
    gate.set()
    sizes = [answer.batch_size for answer in await asyncio.gather(*asked)]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert sizes == [1, 4, 4, 4, 4, 4, 4, 4, 4, 2, 2]


@in_loop
async def test_a_full_batch_waits_for_nobody(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    many = batcher(model, executor, sessions=20, max_batch=2)
    await asyncio.gather(*[many.predict({"grip": grip}) for grip in range(4)])
    assert model.batches == [[0, 1], [2, 3]]


@in_loop
async def test_more_than_max_queue_are_refused_and_those_who_wait_are_not_harmed(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    two = batcher(model, executor, sessions=9, max_queue=2, window_s=0)
    request, gate = gated(0)
    asked = [ask(two.predict(request))]
    await happens(model.entered)
    asked += [ask(two.predict({"grip": grip})) for grip in (1, 2)]
    await settle()
    with pytest.raises(Busy, match="2 observations wait .* already; send it again in a moment"):
        await two.predict({"grip": 3})
    gate.set()
    assert [answer.value for answer in await asyncio.gather(*asked)] == [0, 1, 2]
    assert (await two.predict({"grip": 3})).value == 3


@in_loop
async def test_a_request_that_spoils_its_batch_fails_alone(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    three = batcher(model, executor, sessions=3)
    requests = [{"grip": 0}, {"grip": 1, "explode": True}, {"grip": 2}]
    asked = [three.predict(request) for request in requests]
    first, guilty, last = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(first, Predicted)
    assert isinstance(last, Predicted)
    assert (first.value, first.batch_size, last.value) == (0, 1, 2)
    assert isinstance(guilty, RuntimeError)
    assert model.batches == [[0, 1, 2], [0], [1], [2]]
    answers = await asyncio.gather(*[three.predict({"grip": grip}) for grip in range(3)])
    assert [answer.batch_size for answer in answers] == [3, 3, 3]


@in_loop
async def test_a_lone_request_that_fails_is_not_tried_twice(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    one = batcher(model, executor)
    with pytest.raises(RuntimeError, match="secret"):
        await one.predict({"grip": 1, "explode": True})
    assert model.batches == [[1]]


@in_loop
async def test_a_model_that_loses_an_answer_of_a_batch_pairs_none_with_another_request(
    executor: ThreadPoolExecutor,
) -> None:
    class Forgetful(CountingPolicy):
        def predict(self, requests: Sequence[Any]) -> list[float]:
            answers = super().predict(requests)
            return answers if len(answers) == 1 else answers[1:]

    three = batcher(Forgetful("010000"), executor, sessions=3)
    answers = await asyncio.gather(*[three.predict({"grip": grip}) for grip in range(3)])
    assert [answer.value for answer in answers] == [0, 1, 2]


@in_loop
async def test_who_leaves_the_queue_takes_up_no_room_and_is_not_predicted(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    two = batcher(model, executor, sessions=9, max_queue=2, window_s=0)
    request, gate = gated(0)
    first = ask(two.predict(request))
    await happens(model.entered)
    gone, stays = ask(two.predict({"grip": 1})), ask(two.predict({"grip": 2}))
    await settle()
    gone.cancel()
    await settle()
    assert two.waiting == 1
    late = ask(two.predict({"grip": 3}))
    await settle()
    gate.set()
    assert [answer.value for answer in await asyncio.gather(first, stays, late)] == [0, 2, 3]
    assert model.batches == [[0], [2, 3]]
    assert gone.cancelled()


@in_loop
async def test_when_all_have_left_before_the_window_is_over_nothing_is_predicted(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    two = batcher(model, executor, sessions=2, window_s=0.001)
    gone = ask(two.predict({"grip": 0}))
    await settle()
    gone.cancel()
    assert (await two.predict({"grip": 1})).value == 1
    assert model.batches == [[1]]


@in_loop
async def test_who_leaves_a_running_batch_does_not_disturb_it(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    two = batcher(model, executor, sessions=2)
    request, gate = gated(0)
    gone, stays = ask(two.predict(request)), ask(two.predict({"grip": 1}))
    await happens(model.entered)
    gone.cancel()
    await settle()
    gate.set()
    assert (await stays).value == 1
    assert gone.cancelled()


@in_loop
async def test_a_batch_gathers_until_the_inference_thread_is_free(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    other = CountingPolicy("020000")
    request, gate = gated(0)
    running = ask(batcher(model, executor).predict(request))
    await happens(model.entered)
    two = batcher(other, executor, sessions=9, window_s=0)
    asked = [ask(two.predict({"grip": grip})) for grip in range(3)]
    await settle()
    gate.set()
    await asyncio.gather(running, *asked)
    assert other.batches == [[0, 1, 2]]


@in_loop
async def test_models_that_share_the_thread_take_turns(executor: ThreadPoolExecutor) -> None:
    order: list[str] = []

    class Recorded(CountingPolicy):
        def predict(self, requests: Sequence[Any]) -> list[float]:
            order.append(self.meta["checkpoint_id"])
            return super().predict(requests)

    models = [Recorded("a"), Recorded("b")]
    a, b = (batcher(model, executor, sessions=9, max_batch=1) for model in models)
    request, gate = gated(0)
    asked = [ask(a.predict(request))]
    await happens(models[0].entered)
    asked += [ask(a.predict({"grip": 0})) for _ in range(3)]
    asked += [ask(b.predict({"grip": 0})) for _ in range(3)]
    await settle()
    gate.set()
    await asyncio.gather(*asked)
    assert order == ["a", "b", "a", "b", "a", "b", "a"]


@in_loop
async def test_many_sessions_each_get_their_own_answers_in_the_order_of_asking(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    shared = batcher(model, executor, sessions=8, max_batch=5, window_s=0.0005)
    rng = random.Random(0)
    order: list[float] = []
    sizes: set[int] = set()

    async def robot(number: int) -> None:
        for step in range(40):
            grip = number * 100 + step
            patience = None if rng.random() < 0.9 else 0.0002
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    order.append(grip)
                    answer = await shared.predict({"grip": grip})
                    assert answer.value == grip
                    sizes.add(answer.batch_size)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.002)

    await asyncio.gather(*[robot(number) for number in range(8)])
    predicted = [grip for batch in model.batches for grip in batch]
    # Those who left early are missing, and nobody has overtaken anybody.
    assert predicted == [grip for grip in order if grip in set(predicted)]
    assert len(predicted) > 280
    assert max(sizes) == 5


@in_loop
async def test_it_says_where_the_time_went(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    one = batcher(model, executor, sessions=1)
    loop = asyncio.get_running_loop()
    request, gate = gated(0)
    first = ask(one.predict(request))
    await happens(model.entered)
    asked_at = loop.time()
    second = ask(one.predict({"grip": 1, "sleep": 0.02}))
    await settle()
    waited = loop.time() - asked_at
    gate.set()
    answer = await second
    assert answer.queue_s >= waited
    assert answer.infer_s >= 0.02
    assert answer.queue_s + answer.infer_s <= loop.time() - asked_at
    assert (await first).infer_s >= waited


@in_loop
async def test_a_server_that_stops_answers_what_runs_and_refuses_the_rest(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    one = batcher(model, executor)
    request, gate = gated(0)
    running = ask(one.predict(request))
    await happens(model.entered)
    waiting = ask(one.predict({"grip": 1}))
    await settle()
    one.close()
    for refused in (waiting, one.predict({"grip": 2})):
        with pytest.raises(Busy, match="the server is stopping"):
            await refused
    gate.set()
    assert (await running).value == 0
    assert model.batches == [[0]]


@in_loop
async def test_nothing_of_a_request_stays_whether_it_fails_or_not(
    model: CountingPolicy, executor: ThreadPoolExecutor
) -> None:
    class Observation(dict[str, Any]):
        pass

    one = batcher(model, executor)
    left: list[weakref.ref[Observation]] = []

    async def infer(**extra: Any) -> None:
        request = Observation(grip=1, **extra)
        left.append(weakref.ref(request))
        with contextlib.suppress(RuntimeError):
            await one.predict(request)

    gc.disable()
    try:
        await infer()
        await infer(explode=True)
        # The inference thread lets go of its work once it has told the event loop.
        await asyncio.to_thread(executor.submit(lambda: None).result, 20)
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_batch": 0}, "max_batch is 0; expected 1 or more"),
        ({"max_queue": -1}, "max_queue is -1"),
        ({"window_s": -0.1}, "the batch window is -0.1 s; expected 0 or more"),
        ({"window_s": float("nan")}, "window is nan"),
        ({"window_s": float("inf")}, "window is inf"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Batching(**wrong)
