"""What ``/openapi.json`` says is what the server answers."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from positronic.offboard.serving import limits
from tests.positronic.offboard.running import ask, get, raw, ready, serving
from tests.positronic.offboard.small_models import Source
from tests.waiting import until

TOKEN = "correct-horse"
MINE = {"Authorization": f"Bearer {TOKEN}"}
PATHS = ["/api/v1/models", "/api/v1/status", "/livez", "/metrics", "/readyz"]
OPEN = ["/livez", "/readyz"]


class Described:
    """A server, and what it says of itself."""

    def __init__(self, port: int, headers: Mapping[str, str] = {}) -> None:
        self.port = port
        status, self.document = get(port, "/openapi.json", headers)
        assert status == 200

    def check(self, path: str, headers: Mapping[str, str] = {}) -> int:
        """Ask, and hold the answer to what is declared; returns the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            body = response.read()
        self.hold(path, response.status, response.headers["content-type"], body)
        declared = self.responses(path)[str(response.status)]
        assert all(name in response.headers for name in declared.get("headers", ()))
        return response.status

    def responses(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.document["paths"][path]["get"]["responses"]
        return found

    def hold(self, path: str, status: int, content_type: str, body: bytes) -> None:
        """Hold an answer to what is declared of it."""
        content = self.responses(path)[str(status)]["content"]
        kind = content_type if content_type in content else content_type.partition(";")[0]
        assert kind in content, f"{path} answers {status} with {content_type}"
        value = json.loads(body) if kind == "application/json" else body.decode()
        schema = {**content[kind]["schema"], "components": self.document["components"]}
        Draft202012Validator(schema).validate(value)
        if isinstance(value, dict):
            name = schema["$ref"].rpartition("/")[2]
            assert value.keys() == schema["components"]["schemas"][name]["properties"].keys()


def test_every_endpoint_is_described_and_answers_as_it_says() -> None:
    source = Source(["010000", "020000"], backend="torch", precision="float32", device="cpu")
    gate = source.hold("010000")
    with serving(source, wait=False) as port:
        described = Described(port)
        assert sorted(described.document["paths"]) == PATHS
        assert described.check("/readyz") == 503
        assert [described.check(path) for path in PATHS if path != "/readyz"] == [200] * 4
        gate.set()
        with raw(port) as session:
            ready(session)
            assert ask(session, grip=0, task="stack")["result"]
            assert ask(session, task="no grip")["error"]
            assert [described.check(path) for path in PATHS] == [200] * 5
        source.hold("020000")
        with raw(port, "/api/v1/session/020000"):
            until(lambda: len(get(port, "/api/v1/status")[1]["models"]) == 2, "it to be loaded")
            assert described.check("/api/v1/status") == 200


def test_each_field_says_what_it_is() -> None:
    with serving(Source(["010000"])) as port:
        schemas = get(port, "/openapi.json")[1]["components"]["schemas"]
    assert len(schemas) >= 9
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, facts in schema.get("properties", {}).items()
        if not {"description", "enum", "$ref", "items"} & facts.keys()
    ]
    assert silent == []


def test_the_token_is_declared_where_it_is_needed_and_only_there() -> None:
    with serving(Source(["010000"]), token=TOKEN) as port:
        described = Described(port, MINE)
        for path in PATHS:
            operation = described.document["paths"][path]["get"]
            assert ("security" in operation) == ("401" in operation["responses"])
            assert described.check(path) == (200 if path in OPEN else 401)
            assert described.check(path, MINE) == 200
            assert "403" not in operation["responses"]
        (scheme,) = described.document["components"]["securitySchemes"].values()
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    with serving(Source(["010000"])) as port:
        described = Described(port)
        assert "securitySchemes" not in described.document["components"]
        for path in PATHS:
            assert "401" not in described.responses(path)
            assert described.check(path, {"Host": "robots.example"}) == 403


def answer(port: int, head: bytes) -> tuple[int, str, bytes]:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(head)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.headers["content-type"], response.read()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Host: two names"], 400),
        ([b"Host: localhost", b"Content-Length: 3"], 413),
        ([b"Host: localhost", b"X: " + bytes(9000).replace(b"\0", b"x")], 431),
        ([b"Host: localhost", b"half a header"], 408),
    ],
)
def test_what_is_refused_before_an_endpoint_is_asked_is_declared(
    lines: Sequence[bytes], status: int
) -> None:
    end = b"" if status == 408 else b"\r\n\r\n"
    head = b"\r\n".join([b"GET %s HTTP/1.1", *lines]) + end
    with serving(Source(["010000"]), handshake_timeout_s=0.5) as port:
        described = Described(port)
        for path in PATHS:
            got, kind, body = answer(port, head.replace(b"%s", path.encode()))
            assert got == status
            described.hold(path, got, kind, body)


def test_too_many_connections_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OTHER_CONNECTIONS", 0)
    with serving(Source(["010000"]), max_sessions=1) as port:
        described = Described(port)
        with raw(port) as session:
            ready(session)
            for path in PATHS:
                got, kind, body = answer(port, f"GET {path} HTTP/1.1\r\n\r\n".encode())
                assert got == 503
                described.hold(path, got, kind, body)


def test_a_list_of_checkpoints_that_does_not_come_is_declared() -> None:
    source, gate = Source(["010000"]), threading.Event()
    with serving(source, request_timeout_s=0.2) as port:
        described = Described(port)

        def ids() -> list[str]:
            assert gate.wait(20)
            return ["010000"]

        source.ids = ids  # type: ignore[method-assign]
        assert described.check("/api/v1/models") == 503
        gate.set()
        until(lambda: described.check("/api/v1/models") == 200, "the list to come")
