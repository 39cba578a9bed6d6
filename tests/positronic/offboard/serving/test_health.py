import datetime
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from positronic.offboard import wire
from tests.positronic.offboard.running import after_loading, ask, get, raw, ready, receive, serving
from tests.positronic.offboard.small_models import NBYTES, Source
from tests.waiting import until


@pytest.fixture
def source() -> Source:
    return Source(["010000", "020000"], backend="torch", precision="float32", device="cpu")


@pytest.fixture
def port(source: Source) -> Iterator[int]:
    with serving(source, max_sessions=7) as port:
        yield port


def samples(port: int) -> dict[str, float]:
    """What Prometheus would read; labels in braces."""
    status, body = get(port, "/metrics")
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_it_is_alive_while_it_loads_and_ready_with_evidence_afterwards(source: Source) -> None:
    gate = source.hold("010000")
    with serving(source, wait=False) as port:
        assert get(port, "/livez") == (200, b"ok\n")
        evidence = {"inferences": 0, "last_cost_ms": None, "default": "010000"}
        reason = "loading checkpoint 010000"
        assert get(port, "/readyz") == (503, {"ready": False, **evidence, "reason": reason})
        gate.set()
        with raw(port) as session:
            ready(session)
            assert get(port, "/readyz") == (200, {"ready": True, **evidence})
            assert ask(session, grip=0, sleep=0.02)["result"]
        status, said = get(port, "/readyz")
        assert (status, said["ready"], said["inferences"]) == (200, True, 1)
        assert said["last_cost_ms"] >= 20


def test_the_status_describes_server_models_and_sessions(port: int) -> None:
    with raw(port) as one, raw(port, "/api/v1/session/020000") as two:
        ready(one)
        ready(two)
        assert ask(one, grip=0, task="stack the red cube")["result"]
        assert ask(one, task="x" * 999)["error"]
        _, document = get(port, "/api/v1/status")
    server = document["server"]
    started = datetime.datetime.fromisoformat(server.pop("started"))
    assert abs(started.timestamp() + server.pop("uptime_s") - time.time()) < 2
    assert server.pop("last_cost_ms") > 0
    assert isinstance(server.pop("version"), str)
    assert server == {
        "ready": True,
        "draining": False,
        "inferences": 1,
        "max_sessions": 7,
        "memory_bytes": 10 * NBYTES,
        "docs": True,
    }
    known = {"type": "counting", "backend": "torch", "precision": "float32", "device": "cpu"}
    for model, name in zip(document["models"], ("010000", "020000"), strict=True):
        assert model.pop("idle_s") >= 0
        assert model == {
            "id": name,
            "state": "ready",
            "default": name == "010000",
            **known,
            "dataset": None,
            "dropped": 0,
            "nbytes": NBYTES,
            "sessions": 1,
            "waiting": 0,
        }
    first, second = document["sessions"]
    assert first["age_s"] >= first["idle_s"] >= 0
    assert first["client"].startswith("127.0.0.1:")
    assert (first["inferences"], first["errors"], first["task"]) == (1, 1, "x" * 197 + "...")
    assert (first["model"], second["model"]) == ("010000", "020000")
    assert (first["state"], second["state"]) == ("ready", "ready")
    latency = document["latency"]
    assert latency["columns"] == ["at", "pre_ms", "queue_ms", "infer_ms", "post_ms", "batch_size"]
    ((at, *times, size),) = latency["rows"]
    assert abs(at - time.time()) < 10
    assert min(times) >= 0
    assert size == 1
    assert document["failures"] == {"invalid": 1}


def test_a_model_that_loads_has_the_sessions_that_wait_for_it() -> None:
    """The server's own warm-up is none."""
    source = Source(["010000"])
    source.hold("010000")
    with serving(source, wait=False) as port:

        def counted() -> tuple[int, list[str]]:
            document = get(port, "/api/v1/status")[1]
            (model,) = document["models"]
            assert model["state"] == "loading"
            return model["sessions"], [session["model"] for session in document["sessions"]]

        until(lambda: bool(get(port, "/api/v1/status")[1]["models"]), "the model begins to load")
        assert counted() == (0, [])
        with raw(port) as one:
            assert receive(one)["status"] == "loading"
            assert counted() == (1, ["010000"])


def test_a_session_is_shown_in_the_state_that_it_is_in(source: Source, port: int) -> None:
    def state() -> object:
        return get(port, "/api/v1/status")[1]["sessions"][0]["state"]

    source.hold("020000")
    with raw(port, "/api/v1/session/020000") as session:
        assert receive(session)["status"] == "loading"
        assert state() == "loading"
        source.gates["020000"].set()
        ready(session)
        assert state() == "ready"
        session.send(wire.pack({"grip": 0, "sleep": 0.5}))
        (policy,) = (one for one in source.living if one.meta["checkpoint_id"] == "020000")
        assert policy.entered.acquire(timeout=10)
        assert state() == "inferring"
        assert receive(session)["result"]


def test_only_the_last_answers_are_shown(port: int) -> None:
    with raw(port) as session:
        ready(session)
        for _ in range(610):
            ask(session, grip=0, queued=True)
    _, document = get(port, "/api/v1/status")
    assert len(document["latency"]["rows"]) == 600
    assert document["server"]["inferences"] == 610


def test_metrics_tell_where_the_time_goes(source: Source, port: int) -> None:
    names = {f"positronic_{step}_seconds" for step in ("pre", "queue", "infer", "post")}
    before = samples(port)
    assert {f"{name}_count" for name in names} <= set(before)
    with raw(port) as session:
        ready(session)
        assert ask(session, grip=0, sleep=0.03)["result"]
        assert ask(session, grip=0, queued=True)["result"]
        assert ask(session)["error"]
        after = samples(port)
    assert after["positronic_inferences_total"] == 2
    assert after["positronic_sessions"] == after["positronic_sessions_total"] == 1
    assert after["positronic_pre_seconds_count"] == after["positronic_post_seconds_count"] == 2
    assert after["positronic_infer_seconds_count"] == after["positronic_batch_size_count"] == 1
    assert after["positronic_infer_seconds_sum"] >= 0.03
    assert after["positronic_infer_seconds_bucket{le=0.02}"] == 0
    assert after["positronic_batch_size_sum"] == 1
    assert after["positronic_failures_total{reason=invalid}"] == 1
    assert after["positronic_failures_total{reason=busy}"] == 0
    assert after["positronic_models_loaded"] == 1
    assert after["positronic_model_bytes"] == NBYTES
    assert after["positronic_queue_length"] == 0
    assert after["process_resident_memory_bytes"] > 1e6
    until(lambda: not samples(port)["positronic_sessions"], "the session to end")
    assert samples(port)["positronic_sessions_total"] == 1


def test_metrics_count_a_batch_and_those_that_wait(source: Source, port: int) -> None:
    (policy,) = source.living
    wrong: list[object] = []

    def robot(number: int, barrier: threading.Barrier) -> None:
        with raw(port) as session:
            ready(session)
            barrier.wait(10)
            if ask(session, grip=number)["result"][0]["target_grip"] != number:
                wrong.append(number)
            barrier.wait(10)

    barrier = threading.Barrier(3)
    robots = [threading.Thread(target=robot, args=(number, barrier)) for number in range(3)]
    for thread in robots:
        thread.start()
    for thread in robots:
        thread.join(20)
    assert wrong == []
    assert samples(port)["positronic_batch_size_sum"] == sum(len(b) ** 2 for b in policy.batches)


def test_failures_are_counted_by_reason(source: Source, port: int) -> None:
    source.broken["020000"] = ValueError("secret")
    with raw(port, "/api/v1/session/020000") as session:
        assert after_loading(session)["status"] == "error"
    with raw(port, "/api/v1/session/99") as session:
        assert receive(session)["status"] == "error"
    with raw(port) as session:
        ready(session)
        session.send(b"\xc1")
        assert "malformed" in receive(session)["error"]
        ask(session, grip=0, explode=True)
    counted = {"load_failed": 1, "invalid": 1, "malformed": 1, "internal": 1}
    assert get(port, "/api/v1/status")[1]["failures"] == counted
    found = samples(port)
    for reason, number in counted.items():
        assert found[f"positronic_failures_total{{reason={reason}}}"] == number


def test_the_page_for_people_is_there(port: int) -> None:
    status, body = get(port, "/")
    assert status == 200
    assert b"<html" in body
    assert get(port, "/no-such-page")[0] == 404
