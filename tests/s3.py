"""S3 on loopback for tests: moto's server in a process of its own, and a proxy that injects faults.

Nothing of it is imported or started before a test asks for one of the fixtures.
"""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.waiting import line_of

BUCKET = "bucket"
# A process that forks must not have threads, so the server is no thread of the tests. It ends when
# its standard input does, which is with the tests, however those end.
SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""
# botocore speaks of times in ways that Python has come to dislike.
FILTERS = ["ignore::DeprecationWarning:botocore", "ignore::ResourceWarning"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "endpoint" in getattr(item, "fixturenames", ()):
            for line in FILTERS:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of an empty S3 service, ``http://127.0.0.1:port``."""
    command = [sys.executable, "-c", SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        address = line_of(server.stdout, "moto's server").strip()
        assert address.startswith("http://"), "moto's server did not start"
        yield address
        server.terminate()


@pytest.fixture
def s3(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A boto3 client of the endpoint, with an empty bucket ``bucket``; the environment is set."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_DATA_HOME": str(tmp_path / "data-home"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("foundation.storage.s3.retry.FIRST_PAUSE_S", 0.01)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    reset = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()


@dataclass
class Fault:
    """What happens to the next ``times`` requests of ``method`` whose path contains ``path``."""

    kind: str
    amount: float
    method: str
    path: str
    times: int

    def hits(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("", method) and self.path in path


@dataclass
class Faulty:
    """A proxy in front of the endpoint; without faults it passes everything on.

    ``requests`` holds what came, as ``(method, path)``, and ``headers`` with what. ``watch`` is
    called before each is passed on, for instance to kill its sender.
    """

    upstream: str
    address: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    watch: Callable[[str, str], None] | None = None
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def status(self, code: int, *, method: str = "", path: str = "", times: int = 1) -> None:
        """Answer with an HTTP status, such as 503, and pass nothing on."""
        self.faults.append(Fault("status", code, method, path, times))

    def cut(self, after: int, *, method: str = "GET", path: str = "", times: int = 1) -> None:
        """Close the connection after so many bytes: of the answer to a GET, of a PUT's body."""
        self.faults.append(Fault("cut", after, method, path, times))

    def drop(self, *, method: str = "", path: str = "", times: int = 1) -> None:
        """Close the connection as soon as the request is read: nothing is done, nothing said."""
        self.faults.append(Fault("drop", 0, method, path, times))

    def lose(self, *, method: str = "", path: str = "", times: int = 1) -> None:
        """Pass the request on, then close the connection instead of answering."""
        self.faults.append(Fault("lose", 0, method, path, times))

    def corrupt(self, *, method: str = "GET", path: str = "", times: int = 1) -> None:
        """Change the first byte: of the answer to a GET, of a PUT's body."""
        self.faults.append(Fault("corrupt", 0, method, path, times))

    def slow(self, pause: float, *, method: str = "GET", path: str = "", times: int = 1) -> None:
        """Stop for ``pause`` seconds in the middle of the answer."""
        self.faults.append(Fault("slow", pause, method, path, times))

    def refuse(self) -> None:
        """Send clients to a port where nobody listens, until ``self.enter`` is called again."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"

    def enter(self) -> None:
        os.environ["AWS_ENDPOINT_URL"] = self.address

    def count(self, method: str = "", path: str = "") -> int:
        return sum(method in ("", m) and path in p for m, p in self.requests)

    def next_fault(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            self.headers.append(headers)
            for fault in self.faults:
                if fault.hits(method, path):
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: Faulty

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True  # the client was killed or gave up

    def _serve(self) -> None:
        fault = self.faulty.next_fault(self.command, self.path, dict(self.headers))
        kind, amount = (fault.kind, fault.amount) if fault else ("", 0.0)
        if self.faulty.watch is not None:
            self.faulty.watch(self.command, self.path)
        cut = int(amount) if kind == "cut" and self.command == "PUT" else None
        body = self._body(cut)
        if cut is not None or kind == "drop":
            self.close_connection = True
            return
        if kind == "status":
            self._answer(int(amount), [], b"", fault)
            return
        if kind == "corrupt" and self.command == "PUT" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        status, headers, content = self._pass_on(body)
        if kind == "lose":
            self.close_connection = True
            return
        self._answer(status, headers, content, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _body(self, limit: int | None) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self._read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        length = int(self.headers.get("Content-Length") or 0)
        return self._read(length if limit is None else min(limit, length))

    def _read(self, size: int) -> bytes:
        """Read all of it: S3 stores nothing of a client that is killed before the end of a body."""
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionAbortedError("the client went away within its body")
        return body

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        skipped = {"connection", "transfer-encoding", "content-length", "expect"}
        connection = http.client.HTTPConnection(urlsplit(self.faulty.upstream).netloc, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in skipped:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, fault: Fault | None
    ) -> None:
        kind = fault.kind if fault and self.command != "PUT" else ""
        amount = fault.amount if fault else 0.0
        self.send_response(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # a HEAD names a length and has no content
            elif name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if kind == "corrupt" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        if kind == "cut":
            self.wfile.write(content[: int(amount)])
            self.wfile.flush()
            self.close_connection = True
            return
        half = len(content) // 2
        self.wfile.write(content[:half])
        if kind == "slow":
            self.wfile.flush()
            time.sleep(amount)
        self.wfile.write(content[half:])


@pytest.fixture
def faulty(s3: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A proxy in front of ``endpoint``, to which the environment leads instead of there."""
    proxy = Faulty(endpoint)
    handler = type("Handler", (_Handler,), {"faulty": proxy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        yield proxy
        server.shutdown()
