import hashlib
from pathlib import Path

import pytest

from foundation.storage.s3 import digests
from foundation.storage.s3.digests import digest, etag_of


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 25])
def test_digests_are_those_of_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(digests, "PART", 10)
    monkeypatch.setattr(digests, "MIB", 4)
    content = bytes(range(size))
    path = tmp_path / "file"
    path.write_bytes(content)
    found = digest(path)
    assert (found.size, found.sha256) == (size, hashlib.sha256(content).hexdigest())
    pieces = [content[part.offset : part.offset + part.size] for part in found.parts]
    assert b"".join(pieces) == content
    assert [len(piece) for piece in pieces[:-1]] == [10] * (len(pieces) - 1)
    for part, piece in zip(found.parts, pieces, strict=True):
        assert part.md5 == hashlib.md5(piece).digest()
        assert part.sha256 == hashlib.sha256(piece).digest()
    # As S3 defines it: of several parts the MD5 of their MD5s.
    several = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in pieces)).hexdigest()
    one = hashlib.md5(content).hexdigest()
    assert found.etag == (one if size <= 10 else f"{several}-{len(pieces)}")
    assert etag_of(path, None) == one
    if size:
        assert etag_of(path, 10) == f"{several}-{len(pieces)}"
