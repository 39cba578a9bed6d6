"""Transfers through a connection that fails."""

import os
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import IntegrityError, StorageError
from foundation.storage.s3 import client, digests, fetch, publish
from foundation.storage.s3.retry import ATTEMPTS
from tests.foundation.storage.s3.files import URL, held, made, objects, put
from tests.s3 import Faulty

BIG = os.urandom(1 << 20)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return made(tmp_path / "source", {"a": b"small", "big": BIG})


def test_a_busy_server_is_waited_for(s3: Any, faulty: Faulty, source: Path) -> None:
    for method in ("GET", "PUT", "HEAD"):
        faulty.status(503, method=method, times=2)
    publish(source, URL)
    faulty.status(500, method="GET", times=2)
    assert held(fetch(URL)) == held(source)
    assert all(fault.times == 0 for fault in faulty.faults)


def test_a_server_that_is_away_is_given_up(s3: Any, faulty: Faulty, source: Path) -> None:
    faulty.refuse()
    for action in (lambda: fetch(URL), lambda: publish(source, URL)):
        with pytest.raises(StorageError, match=rf"small.*, tried {ATTEMPTS} times: Could not"):
            action()
    faulty.enter()
    publish(source, URL)


@pytest.mark.parametrize("fault", ["cut", "drop", "corrupt", "slow"])
def test_a_download_survives(
    s3: Any, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.3)
    put(s3, "big", BIG)
    arguments = {"cut": (1 << 18,), "slow": (0.8,)}.get(fault, ())
    getattr(faulty, fault)(*arguments, method="GET", path="/small/big", times=2)
    assert held(fetch(URL)) == {"big": BIG}
    assert faulty.count("GET", "/small/big") == 3
    # What had arrived is not fetched twice, unless it was wrong.
    assert ("Range" in faulty.headers[-1]) == (fault in ("cut", "slow"))


def test_a_long_transfer_is_cut_as_often_as_it_likes(s3: Any, faulty: Faulty) -> None:
    put(s3, "big", BIG)
    faulty.cut(1 << 16, path="/small/big", times=2 * ATTEMPTS)
    assert held(fetch(URL)) == {"big": BIG}


@pytest.mark.parametrize("fault", ["cut", "drop", "lose", "corrupt"])
@pytest.mark.parametrize("size", [6 << 20, 1 << 20], ids=["in parts", "in one"])
def test_an_upload_survives(
    s3: Any,
    faulty: Faulty,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    size: int,
) -> None:
    monkeypatch.setattr(digests, "PART", 5 << 20)
    (source / "big").write_bytes(os.urandom(size))
    arguments = (1 << 19,) if fault == "cut" else ()
    getattr(faulty, fault)(*arguments, method="PUT", path="/small/big", times=2)
    publish(source, URL)
    assert all(entry.times == 0 for entry in faulty.faults)
    # As another tool reads it, and as we do.
    assert {name: objects(s3)[name] for name in ("a", "big")} == held(source) == held(fetch(URL))


@pytest.mark.parametrize("name", [".published.json", "big"])
def test_an_answer_that_was_lost_is_no_other_writer(
    s3: Any, faulty: Faulty, source: Path, name: str
) -> None:
    faulty.lose(method="PUT", path=name, times=1)
    publish(source, URL)
    assert held(fetch(URL)) == held(source)


def test_what_always_arrives_wrong_is_refused(s3: Any, faulty: Faulty, source: Path) -> None:
    put(s3, "big", BIG)
    faulty.corrupt(method="GET", path="/small/big", times=99)
    with pytest.raises(
        IntegrityError, match=rf"big cannot be fetched, tried {ATTEMPTS} times: .*checksum"
    ):
        fetch(URL)
    faulty.corrupt(method="PUT", path="/small/b/big", times=99)
    with pytest.raises(IntegrityError, match="b/big cannot be written.*: what S3 received does"):
        publish(source, f"{URL}/b")
    with pytest.raises(StorageError, match="small/b is unfinished"):
        fetch(f"{URL}/b")


def test_parts_of_other_tools_are_verified(s3: Any, faulty: Faulty) -> None:
    where = {"Bucket": "bucket", "Key": "datasets/small/parts"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    parts = []
    content = os.urandom(6 << 20)
    for number, body in enumerate((content[: 5 << 20], content[5 << 20 :]), 1):
        etag = s3.upload_part(**where, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    faulty.corrupt(method="GET", path="/small/parts", times=1)
    assert held(fetch(URL)) == {"parts": content}
    assert faulty.count("GET", "/small/parts") == 2


def test_what_may_not_be_done_is_said_at_once(
    s3: Any, faulty: Faulty, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.status(403, method="GET", times=1)
    with pytest.raises(StorageError, match=r"s3://bucket/datasets/small.* cannot be .*403"):
        fetch(URL)
    assert len(faulty.requests) == 1
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="no credentials; set AWS_ACCESS_KEY_ID and"):
        fetch(URL)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "1")
    s3.put_object(Bucket="bucket", Key="datasets/small/a", Body=b"public", ACL="public-read")
    assert held(fetch(URL)) == {"a": b"public"}
    assert "Authorization" not in faulty.headers[-1]
