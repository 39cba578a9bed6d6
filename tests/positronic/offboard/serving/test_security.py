import socket
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from foundation.errors import UsageError
from positronic.offboard.serving.process import resolve
from positronic.offboard.serving.security import (
    authorised,
    is_insecure,
    is_loopback,
    read_token,
    require_token,
)
from tests.positronic.offboard.running import ask, get, raw, ready, serving
from tests.positronic.offboard.small_models import Source

TOKEN = "correct-horse"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", resolve("localhost")]
)
def test_this_machine_alone(address: str) -> None:
    assert is_loopback(address)
    require_token(address, address, None, insecure=False)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "192.168.1.7", "10.0.0.1", "128.0.0.1", resolve("0"), resolve("0.0")),
        *("::", "fe80::1", "fe80::1%eth0", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:0.0.0.0"),
    ],
)
def test_others_need_a_token_unless_the_operator_says_that_they_need_none(address: str) -> None:
    assert not is_loopback(address)
    with pytest.raises(UsageError) as error:
        require_token(address, "0.0.0.0", None, insecure=False)
    assert str(error.value).startswith(
        "--host=0.0.0.0 lets other machines connect without a token; make one with"
        " `export AUTH_TOKEN="
    )
    assert "--insecure" in str(error.value)
    require_token(address, "0.0.0.0", None, insecure=True)
    require_token(address, "0.0.0.0", TOKEN, insecure=False)


def test_a_name_is_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        # A name that sounds local need not be.
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.168.1.7", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert not is_loopback(resolve("localhost"))


@pytest.mark.parametrize("token", ["", " ", "\t\n"])
def test_an_empty_token_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="AUTH_TOKEN is set but empty, which would let everybody"):
        read_token({"AUTH_TOKEN": token})


@pytest.mark.parametrize("token", ["two words", "line\n", "clé", "\x00"])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="which no header can carry; make one with"):
        read_token({"AUTH_TOKEN": token})


def test_the_environment_decides() -> None:
    assert read_token({}) is None
    assert read_token({"AUTH_TOKEN": TOKEN}) == TOKEN
    assert is_insecure({"POSITRONIC_INSECURE": "1"})
    assert not is_insecure({"POSITRONIC_INSECURE": "0"})
    assert not is_insecure({"POSITRONIC_INSECURE": ""})
    assert not is_insecure({})
    with pytest.raises(UsageError, match="POSITRONIC_INSECURE=yes is neither 1"):
        is_insecure({"POSITRONIC_INSECURE": "yes"})


def test_the_comparison_takes_the_same_time_for_every_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare_digest)
    assert authorised(f"Bearer {TOKEN}", TOKEN, "Bearer")
    assert not authorised("Bearer wrong", TOKEN, "Bearer")
    assert not authorised(None, TOKEN, "Bearer")
    assert [one for one, _ in compared] == [TOKEN.encode(), b"wrong", b""]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer \u00e9"},
    ],
)
def test_without_the_token_nothing_is_served_but_health_and_the_page(
    header: dict[str, str],
) -> None:
    with serving(Source(["010000"]), token=TOKEN) as port:
        for path in ("/api/v1/models", "/api/v1/status", "/metrics", "/api/v1/nothing"):
            status, body = get(port, path, header)
            assert (status, body) == (401, b"a token is needed\n")
        for path in ("", "/010000"):
            with pytest.raises(InvalidStatus, match="403"):
                raw(port, f"/api/v1/session{path}", additional_headers=header)
        for path in ("/livez", "/readyz", "/", "/status_page/status.js"):
            assert get(port, path)[0] == 200
        mine = {"Authorization": f"bearer {TOKEN}"}
        assert get(port, "/api/v1/models", mine) == (200, {"models": ["010000"]})
        assert get(port, "/api/v1/status", mine)[1]["failures"] == {"unauthorised": 6}
        with raw(port, additional_headers=mine) as session:
            ready(session)
            assert ask(session, grip=0)["result"]


def test_a_page_of_another_site_cannot_use_the_robot_of_who_looks_at_it() -> None:
    with serving(Source(["010000"])) as port:
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{port + 1}"):
            with pytest.raises(InvalidStatus, match="403"):
                raw(port, origin=origin)
        with raw(port, origin=f"http://127.0.0.1:{port}") as session:
            ready(session)
