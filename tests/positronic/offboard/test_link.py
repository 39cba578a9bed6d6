import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from websockets.sync.server import ServerConnection

from foundation.errors import UsageError
from positronic.errors import Busy, SessionError
from positronic.offboard.client import InferenceClient
from tests.positronic.offboard.running import serving
from tests.positronic.offboard.scripted import (
    Refusal,
    client,
    free_port,
    hear,
    say,
    say_ready,
    speaking,
)
from tests.positronic.offboard.small_models import Source

TOKEN = "a-secret-that-nobody-shall-see"


def open_session(connection: ServerConnection) -> None:
    say_ready(connection)
    connection.recv(timeout=20)


def full(connection: ServerConnection) -> None:
    say(connection, {"status": "error", "error": "the server has 64 sessions, which is all"})
    connection.close(1013, "busy")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_is_down_for_a_moment_is_tried_again(status: int) -> None:
    answers: list[Refusal] = [(status, "not now")] * 2
    with speaking(open_session, answers=answers) as port:
        client(port, connect_timeout=20).new_session().close()


def test_a_server_that_stays_down_is_given_up_at_the_deadline() -> None:
    answers: list[Refusal] = [(503, "not now")] * 1000
    with speaking(open_session, answers=answers) as port:
        began = time.monotonic()
        with pytest.raises(SessionError, match=r"HTTP 503\): it is overloaded or down for now"):
            client(port, connect_timeout=0.4).new_session()
        assert 0.4 <= time.monotonic() - began < 5


def test_a_full_server_is_tried_again_until_there_is_room() -> None:
    with speaking(full, full, open_session) as port:
        client(port, connect_timeout=20).new_session().close()


def test_a_server_that_stays_full_is_busy() -> None:
    with (
        speaking(full) as port,
        pytest.raises(Busy, match="refused: the server has 64 sessions"),
    ):
        client(port, connect_timeout=0.3).new_session()


def test_the_real_server_has_room_when_another_session_ends() -> None:
    with serving(Source(["010000"]), max_sessions=1) as port:
        first = client(port).new_session()
        with pytest.raises(Busy):
            client(port, connect_timeout=0.2).new_session()
        thread = threading.Timer(0.2, first.close)
        thread.start()
        with client(port, connect_timeout=20).new_session() as second:
            assert second.infer({"grip": 0.5})
        thread.join(20)
        assert not thread.is_alive(), "the first session did not end within 20 s"


def test_other_refusals_are_final() -> None:
    def refusing(connection: ServerConnection) -> None:
        say(connection, {"status": "error", "error": "Checkpoint not found: 7"})
        connection.close(1008, "Checkpoint not found")

    began = time.monotonic()
    with speaking(refusing) as port, pytest.raises(SessionError, match="not found: 7") as error:
        client(port, connect_timeout=20).new_session()
    assert not isinstance(error.value, Busy)
    with (
        speaking(open_session, answers=[(404, "not found")]) as port,
        pytest.raises(SessionError, match=r"HTTP 404\): it is not an inference server"),
    ):
        client(port, connect_timeout=20).new_session()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("token", "why"), [(None, "it wants a token"), (TOKEN, "not with this")])
def test_a_token_that_is_missing_or_wrong_is_named_at_once(
    status: int, token: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTH_TOKEN", raising=False)
    answers: list[Refusal] = [(status, "no")] * 2
    began = time.monotonic()
    with (
        speaking(open_session, answers=answers) as port,
        pytest.raises(SessionError, match=rf"HTTP {status}\), {why}.*AUTH_TOKEN.*--policy\.token"),
    ):
        client(port, token=token, connect_timeout=20).new_session()
    assert time.monotonic() - began < 10


def test_the_real_server_takes_the_token_of_the_environment_or_of_the_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(Source(["010000"]), token=TOKEN) as port:
        for wrong in ("", "other"):
            monkeypatch.setenv("AUTH_TOKEN", wrong)
            for ask in (client(port).new_session, client(port).models):
                with pytest.raises(SessionError, match="AUTH_TOKEN") as error:
                    ask()
                assert "other" not in str(error.value)
        assert client(port, token=TOKEN).models() == ["010000"]
        monkeypatch.setenv("AUTH_TOKEN", TOKEN)
        assert client(port).models() == ["010000"]
        client(port).new_session().close()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "schlüssel"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="no header can carry") as error:
        InferenceClient(token=token)
    assert token not in str(error.value)


def test_pauses_grow_and_differ_from_client_to_client(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with pytest.raises(SessionError, match="no inference server"):
        client(free_port(), connect_timeout=60).new_session()
    longest = [0.1 * 2**n for n in range(6)] + [5.0] * 100
    assert all(b / 2 <= a <= b for a, b in zip(pauses[:-1], longest, strict=False))
    assert sum(pauses) == pytest.approx(60)
    assert len({pause / b for pause, b in zip(pauses, longest, strict=False)}) == len(pauses)


@pytest.mark.parametrize(
    "options",
    [
        {"connect_timeout": -1},
        {"request_timeout": 0},
        {"reconnect_timeout": float("nan")},
        {"jpeg_quality": 0},
        {"jpeg_quality": 100},
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))}=.*expected"):
        InferenceClient(**options)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS for 127.0.0.1, and the file by which clients know it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "robot")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    known, both = tmp_path / "known.pem", tmp_path / "both.pem"
    known.write_bytes(made.public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both.write_bytes(secret + known.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, known


def test_a_server_behind_tls_is_reached_and_a_stranger_is_refused_at_once(
    certificate: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, known = certificate
    with speaking(open_session, context=context) as port:
        secure = InferenceClient(url=f"wss://127.0.0.1:{port}", connect_timeout=20)
        began = time.monotonic()
        with pytest.raises(SessionError, match="certificate verify failed"):
            secure.new_session()
        assert time.monotonic() - began < 10
        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        with secure.new_session() as session:
            assert session.meta["type"] == "act"


def say_ready_since_0_3(connection: ServerConnection, **more: Any) -> None:
    say(connection, {"status": "ready", "meta": {"type": "scripted"}, **more})


@pytest.mark.parametrize("version", [2, 3])
def test_a_server_that_gives_a_session_id_gets_it_back(version: int) -> None:
    heard = []

    def answer(connection: ServerConnection) -> None:
        say_ready_since_0_3(connection, protocol_version=version, session_id="s-7")
        heard.append(hear(connection))
        say(connection, {"result": [{"target_grip": 1.0}], "timing": {"served_ms": 3.0}})

    with speaking(answer) as port, client(port).new_session() as session:
        assert session.infer({"grip": 1.0}) == [{"target_grip": 1.0}]
        assert session.timing == {"served_ms": 3.0}
    assert heard == [{"session_id": "s-7", "observation": {"grip": 1.0}}]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"protocol_version": 4, "session_id": "s"}, "protocol_version"),
        ({"protocol_version": 2}, "has no session_id"),
        ({"protocol_version": 2, "session_id": 7}, "session_id"),
    ],
)
def test_a_protocol_that_this_client_does_not_know_is_refused(more: Any, message: str) -> None:
    with (
        speaking(lambda connection: say_ready_since_0_3(connection, **more)) as port,
        pytest.raises(SessionError, match=message),
    ):
        client(port).new_session()
