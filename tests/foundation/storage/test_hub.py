from pathlib import Path

import pytest

from foundation import storage
from foundation.errors import Forbidden, NotFound, StorageError
from foundation.storage import hub
from tests.hub_server import HubServer

FILES = {"meta/info.json": b"{}", "data/a[1].parquet": b"rows", "README.md": b"card"}


def held(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_a_repository_is_read_as_a_directory(hub_server: HubServer) -> None:
    hub_server.put("dataset", "somebody/stack", FILES, private=True)
    uri = "hf://datasets/somebody/stack"
    meta = storage.fetch(uri, only=lambda name: name.startswith("meta/"), required="meta/info.json")
    assert held(meta) == {"meta/info.json": b"{}"}
    assert held(storage.fetch(Path(uri))) == FILES  # Path drops a slash
    assert held(storage.fetch(f"{uri}/data")) == {"a[1].parquet": b"rows"}
    assert storage.read_bytes(storage.join(uri, "data", "a[1].parquet")) == b"rows"
    assert storage.children(uri) == ["README.md", "data", "meta"]
    assert storage.listing(f"{uri}/data")["a[1].parquet"].size == 4
    assert storage.exists(uri)
    assert storage.exists(f"{uri}/data")
    assert storage.exists(f"{uri}/README.md")
    assert storage.is_whole(uri)
    assert not storage.exists(f"{uri}/videos")
    with pytest.raises(NotFound, match="somebody/stack@.* has no meta/stats.json"):
        storage.fetch(uri, required="meta/stats.json")


def test_revisions(hub_server: HubServer) -> None:
    repository = hub_server.put("model", "somebody/policy", {"config.json": b"old"})
    old = repository.branches["main"]
    repository.tags["v1"] = old
    new = repository.commit({"config.json": b"new"})
    file = "hf://somebody/policy{}/config.json"
    assert storage.read_bytes(file.format("")) == b"new"
    assert storage.read_bytes(file.format("@v1")) == b"old"
    assert storage.read_bytes(file.format(f"@{old}")) == b"old"
    assert storage.version("hf://somebody/policy") == new
    repository.branches["try/this"] = old
    assert storage.read_bytes(file.format("@try%2Fthis")) == b"old"
    assert (
        storage.join("hf://somebody/policy@try%2Fthis", "a") == "hf://somebody/policy@try%2Fthis/a"
    )
    assert hub.pinned("hf://somebody/policy", prefer="v1").revision == old
    assert hub.pinned("hf://somebody/policy", prefer="v2").revision == new
    with pytest.raises(NotFound, match="hf://somebody/policy has no revision 'v2'; give a branch"):
        storage.fetch("hf://somebody/policy@v2")


def test_what_was_fetched_is_there_without_network(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.put("model", "somebody/policy", {"config.json": b"{}", "other": b""})
    uri = "hf://somebody/policy"
    fetched = storage.fetch(uri, only=lambda name: name == "config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub_server.requests)
    assert storage.fetch(uri, only=lambda name: name == "config.json") == fetched
    assert len(hub_server.requests) == asked
    with pytest.raises(StorageError, match=r"cannot be fetched .*: HF_HUB_OFFLINE forbids it"):
        storage.fetch(uri)
    with pytest.raises(StorageError, match=r"cannot be fetched .*: HF_HUB_OFFLINE forbids it"):
        storage.fetch("hf://somebody/another")


def test_a_line_says_why_it_cannot_be_read(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.put("model", "somebody/gated", {"a": b""}, gated=True)
    hub_server.put("model", "somebody/private", {"a": b""}, private=True)

    def refusal(uri: str) -> str:
        with pytest.raises(StorageError) as said:
            storage.fetch(uri)
        assert "\n" not in str(said.value)
        return str(said.value)

    at = hub_server.address
    missing = (
        f"there is no model somebody/none at {at}, or it is private; check the name, or set HF"
    )
    assert refusal("hf://somebody/none").startswith(missing)
    assert "hf://somebody/gated is gated: ask for access" in refusal("hf://somebody/gated")
    monkeypatch.delenv("HF_TOKEN")
    assert "or it is private; check the name, or set HF_TOKEN" in refusal("hf://somebody/private")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Forbidden, match="no access to hf://somebody/private .*set HF_TOKEN"):
        storage.fetch("hf://somebody/private")
    hub_server.broken = "/api/models"
    assert "the Hub at http://127.0.0.1" in refusal("hf://somebody/private")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be fetched from http://127.0.0.1:9: [Errno 111]" in refusal("hf://a/b")


@pytest.mark.parametrize(
    "uri", ["hf://gpt2", "hf://", "hf://a/b@", "hf://spaces/a/b", "hf://a/b/../c", "hf://a/\x1b"]
)
def test_no_address(uri: str) -> None:
    with pytest.raises(StorageError, match="expected hf://USER/NAME for a policy") as said:
        storage.fetch(uri)
    assert str(said.value).isprintable()


def test_the_hub_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="only read from; .*`positronic-to-lerobot push`"):
        storage.publish(tmp_path, "hf://somebody/stack")
    with (
        pytest.raises(StorageError, match="only read from"),
        storage.output_directory("hf://somebody/stack"),
    ):
        pass
    with pytest.raises(StorageError, match="is on the Hub; expected a local path"):
        storage.local("hf://somebody/stack")
