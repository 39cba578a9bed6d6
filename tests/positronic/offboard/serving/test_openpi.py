import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from positronic.codec.action import AbsolutePose
from positronic.errors import CheckpointError, SessionError
from positronic.geom import normalize_quat
from positronic.offboard import wire
from positronic.offboard.serving.openpi import action_array, make_openpi_app
from positronic.offboard.serving.process import bind
from positronic.offboard.serving.service import DRAINING
from positronic.policy import Action
from tests.positronic.offboard.running import get, raw, ready, serving
from tests.positronic.offboard.small_models import NBYTES, CountingPolicy, CountingSession, Source

STEPS = 5
CODEC = AbsolutePose()


def raw_actions(seed: float) -> NDArray[np.float32]:
    """What a policy predicts: quaternions near unit length, with no say on their sign."""
    rng = np.random.default_rng(int(seed))
    return rng.normal(size=(STEPS, 8)).astype(np.float32)


class PosingSession(CountingSession):
    def finish(self, prediction: Any) -> list[Action]:
        self.count += 1
        commands = CODEC.decode_rows(raw_actions(prediction))
        return [{**command, "timestamp": i / 10} for i, command in enumerate(commands)]


class PosingPolicy(CountingPolicy):
    tasks: list[Any]

    def new_session(self, context: Mapping[str, Any] | None = None) -> PosingSession:
        return PosingSession(self)

    def predict(self, requests: Sequence[Any]) -> list[float]:
        self.tasks = [request.get("task") for request in requests]
        return super().predict(requests)


class PosingSource(Source):
    policy: PosingPolicy

    def load(self, model_id: str, say: Callable[[str], None]) -> CountingPolicy:
        super().load(model_id, say)
        self.policy = PosingPolicy(model_id, {"contract": {"fps": 10.0}}, NBYTES)
        return self.policy


class Served:
    """A server with both protocols, each on its port."""

    def __init__(self, source: PosingSource, port: int, openpi_port: int) -> None:
        self.source, self.port, self.openpi_port = source, port, openpi_port

    def connect(self, **options: Any) -> ClientConnection:
        """As openpi's client does it."""
        opening: ClientConnection = connect(
            f"ws://127.0.0.1:{self.openpi_port}", compression=None, proxy=None, **options
        )
        return opening


def both(source: PosingSource, **options: Any) -> Iterator[Served]:
    listener = bind("127.0.0.1", 0)
    openpi_port = listener.getsockname()[1]
    with serving(source, extras=[(listener, make_openpi_app)], **options) as port:
        yield Served(source, port, openpi_port)


@pytest.fixture
def served() -> Iterator[Served]:
    yield from both(PosingSource(["010000"]))


def unpacked(frame: str | bytes) -> dict[str, Any]:
    assert isinstance(frame, bytes)
    message = wire.unpack(frame)
    assert isinstance(message, dict)
    return message


def test_metadata_first_then_a_reply_for_each_observation(served: Served) -> None:
    with served.connect() as session:
        told = unpacked(session.recv(timeout=10))
        assert told["action_names"] == ["x", "y", "z", "qw", "qx", "qy", "qz", "grip"]
        assert (told["action_fps"], told["checkpoint_id"]) == (10.0, "010000")
        assert told["contract"] == {"fps": 10.0}
        assert not {"status", "local_stack", "port"} & set(told)
        for i in range(3):
            session.send(wire.pack({"grip": float(i), "prompt": "stack the cubes"}))
            reply = unpacked(session.recv(timeout=10))
            timing = reply["server_timing"]
            assert timing["infer_ms"] >= reply["policy_timing"]["infer_ms"] > 0
            assert ("prev_total_ms" in timing) == (i > 0)
            assert reply["actions"].shape == (STEPS, 8)
            assert reply["actions"].dtype == np.float32
    assert served.source.policy.tasks == ["stack the cubes"]


def test_actions_are_those_of_the_policy_in_the_order_of_the_dataset(served: Served) -> None:
    with served.connect() as session:
        session.recv(timeout=10)
        session.send(wire.pack({"grip": 7.0}))
        actions = unpacked(session.recv(timeout=10))["actions"]
    expected = raw_actions(7)
    assert np.array_equal(actions[:, :3], expected[:, :3])
    assert np.array_equal(actions[:, 7], expected[:, 7])
    cosines = np.sum(actions[:, 3:7] * normalize_quat(expected[:, 3:7]), axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-6)


def test_a_rotation_that_turns_on_never_jumps_to_the_other_quaternion() -> None:
    # A full turn about z: the quaternion with w >= 0 changes its sign at half of it.
    half = np.linspace(0, np.pi, 20)
    poses = np.zeros((20, 8))
    poses[:, 3], poses[:, 6] = np.cos(half), np.sin(half)
    actions = action_array(CODEC.decode_rows(poses))
    np.testing.assert_allclose(actions, poses, atol=1e-6)


def test_commands_that_are_no_poses_are_refused() -> None:
    joints = {"robot_command": {"type": "joint_pos", "positions": np.zeros(7)}, "target_grip": 0.0}
    with pytest.raises(SessionError, match=r"end-effector poses, and the policy gave joint_pos"):
        action_array([joints])
    with pytest.raises(SessionError, match="gave nothing"):
        action_array([])


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (wire.pack({"prompt": "no grip"}), "needs grip; present: task"),
        (wire.pack({"grip": 0.0, "explode": True}), "internal error (RuntimeError)"),
        (b"\xc1", "malformed frame"),
        ("text", "expected a binary frame"),
    ],
)
def test_an_error_is_one_line_of_text_and_the_end(
    served: Served, frame: bytes | str, said: str
) -> None:
    with served.connect() as session, served.connect() as other:
        session.recv(timeout=10)
        other.recv(timeout=10)
        session.send(frame)
        error = session.recv(timeout=10)
        assert isinstance(error, str)
        assert said in error
        assert "\n" not in error
        assert "/home/" not in error
        with pytest.raises(ConnectionClosed) as closed:
            session.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        other.send(wire.pack({"grip": 1.0}))
        assert "actions" in unpacked(other.recv(timeout=10))
    status = get(served.port, "/api/v1/status")[1]
    assert sum(status["failures"].values()) == 1


def test_both_protocols_share_the_models_the_limits_and_the_counters() -> None:
    for served in both(PosingSource(["010000"]), max_sessions=2):
        with served.connect() as session, raw(served.port) as native:
            ready(native)
            session.recv(timeout=10)
            session.send(wire.pack({"grip": 1.0}))
            session.recv(timeout=10)
            status = get(served.port, "/api/v1/status")[1]
            assert len(status["sessions"]) == 2
            assert status["server"]["inferences"] == 1
            assert status["models"][0]["sessions"] == 2
            with pytest.raises(InvalidStatus) as refused:
                served.connect()
            assert refused.value.response.status_code == 503
            assert b"full" in (refused.value.response.body or b"")
        assert served.source.loads == ["010000"]


def test_a_client_that_comes_early_waits_for_its_metadata() -> None:
    source = PosingSource(["010000"])
    gate = source.hold("010000")
    for served in both(source, wait=False):
        with served.connect() as session:
            with pytest.raises(TimeoutError):
                session.recv(timeout=0.05)
            gate.set()
            assert unpacked(session.recv(timeout=10))["checkpoint_id"] == "010000"


def test_a_client_that_waited_for_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    source = PosingSource(["010000"])
    gate = source.hold("010000")
    source.broken["010000"] = CheckpointError("checkpoint 010000 holds no weights")
    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.set())
    # Without its default model the server ends, and the fixture finds no loop to stop.
    with contextlib.suppress(RuntimeError):
        for served in both(source, wait=False):
            with served.connect() as session:
                gate.set()
                said = session.recv(timeout=10)
                with pytest.raises(ConnectionClosed):
                    session.recv(timeout=10)
            assert ended.wait(10)
    # Whichever of the two reasons comes first.
    assert said in (DRAINING, str(source.broken["010000"]))


def test_the_token_is_an_api_key_and_health_needs_none() -> None:
    for served in both(PosingSource(["010000"]), token="secret"):
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "Bearer secret"}):
            with pytest.raises(InvalidStatus) as refused:
                served.connect(additional_headers=headers)
            assert refused.value.response.status_code == 403
        with served.connect(additional_headers={"Authorization": "Api-Key secret"}) as session:
            assert "action_names" in unpacked(session.recv(timeout=10))
        assert get(served.openpi_port, "/healthz") == (200, b"OK\n")
        headers = {"Authorization": "Bearer secret"}
        status = get(served.port, "/api/v1/status", headers)[1]
        assert status["failures"] == {"unauthorised": 3}
