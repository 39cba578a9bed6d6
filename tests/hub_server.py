"""The Hub on loopback for tests: the part of its HTTP interface that huggingface_hub asks for.

Repositories with branches, tags and commits, files sent in a commit or by Git LFS, tokens, private
and gated repositories. Nothing of it is started before a test asks for one of the fixtures.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_token_of_somebody"
# Larger files go by Git LFS, as do these.
LARGE, BINARY = 1 << 20, (".safetensors", ".parquet", ".mp4")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([a-z-]+)(?:/(.*))?)?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
BATCH = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")

type Files = dict[str, bytes]
type Key = tuple[str, str]
"""Type, ``model`` or ``dataset``, and name."""

# huggingface_hub sends files in a way that httpx has come to dislike.
FILTER = "ignore:Use 'content=:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "hub_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings(FILTER))


@dataclass
class Repository:
    """One repository: a chain of commits, and the names that point at them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({})

    def commit(self, files: Files, branch: str = "main") -> str:
        """Add a commit with exactly these files."""
        text = f"{len(self.commits)} {sorted(files.items())}".encode()
        oid = hashlib.sha1(text).hexdigest()
        self.commits[oid] = dict(files)
        self.branches[branch] = oid
        return oid

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a commit's id."""
        if revision in self.commits:
            return revision
        return self.tags.get(revision) or self.branches.get(revision)

    def files(self, revision: str = "main") -> Files:
        """Return the files of a revision."""
        oid = self.find(revision)
        assert oid is not None, f"no revision {revision}"
        return self.commits[oid]


@dataclass
class HubServer:
    """The service's state. ``requests`` holds what came, as ``(method, path)``."""

    address: str = ""
    repositories: dict[Key, Repository] = field(default_factory=dict)
    objects: Files = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    user: str = "somebody"
    """Whose the token is."""
    read_only: bool = False
    """Whether the token may only read."""
    broken: str = ""
    """Requests whose path holds it are answered with 400."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, kind: str, name: str, files: Files, **options: Any) -> Repository:
        """Make a repository with these files."""
        repository = self.repositories[kind, name] = Repository(**options)
        repository.commit(files)
        return repository

    def of(self, kind: str, name: str) -> Repository:
        """Return a repository."""
        return self.repositories[kind, name]

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """The variables that send another process here, with ``home`` for its caches."""
        found = {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_LEROBOT_HOME": str(home / "lerobot"),
            "HF_HUB_DISABLE_XET": "1",
        }
        return found | ({"HF_TOKEN": token} if token else {})


class Refused(Exception):
    """An answer other than 200: status, code, message."""

    def __init__(self, status: int, code: str = "", message: str = "", url: str = "") -> None:
        self.status, self.code, self.message, self.url = status, code, message, url


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            try:
                if self.hub.broken and self.hub.broken in path:
                    raise Refused(400, message="broken for a test")
                self._answer(200, *self._route(path, body))
            except Refused as refused:
                headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
                content = json.dumps({"error": refused.message, "url": refused.url}).encode()
                self._answer(refused.status, content, {k: v for k, v in headers.items() if v})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _route(self, path: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        if path == "/api/whoami-v2":
            self._require_user()
            return _json(
                {"type": "user", "name": self.hub.user, "orgs": [], "auth": {"type": "token"}}
            )
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.startswith("/lfs/"):
            self.hub.objects[path.removeprefix("/lfs/")] = body
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
            return b"", {}
        if found := BATCH.fullmatch(path):
            self._repository("dataset" if found[1] else "model", found[2], write=True)
            return self._batch(json.loads(body))
        if found := API.fullmatch(path):
            repository = self._repository(
                found[1].removesuffix("s"), found[2], write=self.command != "GET"
            )
            return self._api(repository, found[2], found[3] or "", found[4] or "", body)
        if found := RESOLVE.fullmatch(path):
            repository = self._repository("dataset" if found[1] else "model", found[2])
            return self._resolve(repository, found[3], found[4])
        raise Refused(404)

    def _user(self) -> bool:
        given = self.headers.get("Authorization", "")
        if given and given != f"Bearer {TOKEN}":
            raise Refused(401, message="Invalid credentials in Authorization header")
        return bool(given)

    def _require_user(self) -> None:
        if not self._user():
            raise Refused(401, message="Invalid username or password.")

    def _repository(self, kind: str, name: str, *, write: bool = False) -> Repository:
        known = self._user()
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and not known):
            # As the real one: who is not known learns nothing.
            raise Refused(404 if known else 401, "RepoNotFound", "Repository not found")
        if repository.gated:
            raise Refused(403, "GatedRepo", f"Access to {name} is restricted.")
        if write:
            self._require_user()
            if self.hub.read_only:
                raise Refused(403, message="you must use a write token to write to a repository")
        return repository

    def _create(self, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        self._require_user()
        owner = asked.get("organization") or self.hub.user
        if self.hub.read_only or owner != self.hub.user:
            raise Refused(403, message=f"no right to create a repository under {owner!r}")
        kind, name = asked.get("type") or "model", f"{owner}/{asked['name']}"
        prefix = "datasets/" if kind == "dataset" else ""
        url = f"{self.hub.address}/{prefix}{name}"
        if (kind, name) in self.hub.repositories:
            # With its address, as the real one.
            raise Refused(409, message="You already created this repository", url=url)
        self.hub.repositories[kind, name] = Repository(asked.get("visibility") == "private")
        return _json({"url": url, "name": name})

    def _batch(self, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        objects = []
        for one in asked["objects"]:
            upload = {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}
            objects.append(
                {**one, **({} if one["oid"] in self.hub.objects else {"actions": upload})}
            )
        return _json({"transfer": "basic", "objects": objects})

    def _api(
        self, repository: Repository, name: str, what: str, rest: str, body: bytes
    ) -> tuple[bytes, dict[str, str]]:
        if what in ("", "revision"):
            oid = _commit(repository, rest or "main")
            siblings = [{"rfilename": path} for path in repository.commits[oid]]
            return _json(
                {"id": name, "sha": oid, "private": repository.private, "siblings": siblings}
            )
        if what == "tree":
            files = repository.commits[_commit(repository, rest)]
            return _json([_entry(path, content) for path, content in sorted(files.items())])
        if what == "refs":
            return _json(
                {"converts": [], "branches": _refs("heads", repository.branches)}
                | {"tags": _refs("tags", repository.tags)}
            )
        if what == "preupload":
            asked = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": _mode(f["path"], f["size"]),
                    "shouldIgnore": False,
                }
                for f in asked
            ]
            return _json({"files": modes})
        if what == "commit":
            oid = self._commit(repository, _commit(repository, rest), body)
            return _json({"commitOid": oid, "commitUrl": f"{self.hub.address}/{name}/commit/{oid}"})
        if what == "tag" and self.command == "DELETE":
            if repository.tags.pop(rest, None) is None:
                raise Refused(404, "RevisionNotFound", "no such tag")
            return b"", {}
        if what == "tag":
            tag = json.loads(body)["tag"]
            if tag in repository.tags:
                raise Refused(409, message="Tag reference exists already")
            repository.tags[tag] = _commit(repository, rest)
            return b"", {}
        raise Refused(404)

    def _commit(self, repository: Repository, parent: str, body: bytes) -> str:
        files = dict(repository.commits[parent])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        return repository.commit(files)

    def _resolve(
        self, repository: Repository, revision: str, path: str
    ) -> tuple[bytes, dict[str, str]]:
        oid = _commit(repository, revision)
        content = repository.commits[oid].get(path)
        if content is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        return content, {"ETag": f'"{_entry(path, content)["oid"]}"', "X-Repo-Commit": oid}


def _json(document: Any) -> tuple[bytes, dict[str, str]]:
    return json.dumps(document).encode(), {"Content-Type": "application/json"}


def _commit(repository: Repository, revision: str) -> str:
    oid = repository.find(revision)
    if oid is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return oid


def _refs(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}
        for name, oid in names.items()
    ]


def _mode(path: str, size: int) -> str:
    return "lfs" if size > LARGE or path.endswith(BINARY) else "regular"


def _entry(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if _mode(path, len(content)) == "lfs":
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return entry


def serving() -> Iterator[HubServer]:
    """Serve an empty Hub on loopback while the generator is open."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub
        server.shutdown()


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub; this process is sent there, with a token that may write."""
    from huggingface_hub import close_session, constants

    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    for hub in serving():
        home = tmp_path / "huggingface"
        for name, value in hub.environment(home).items():
            monkeypatch.setenv(name, value)
        # Read from the environment when huggingface_hub was imported.
        constant: dict[str, Any] = {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, read in constant.items():
            monkeypatch.setattr(constants, name, read)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address)
        yield hub
        close_session()
