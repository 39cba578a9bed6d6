import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import StorageError
from foundation.storage import Tree, tree
from tests.s3 import Faulty

URL = "s3://bucket/a"


@pytest.fixture
def parts(s3: Any, faulty: Faulty) -> Tree:
    """Six directories with a file of 1 KiB in each."""
    for i in range(6):
        s3.put_object(Bucket="bucket", Key=f"a/{i}/x", Body=bytes([i]) * 1024)
    listed = Tree.at(URL)
    faulty.requests.clear()
    return listed


def test_parts_are_fetched_by_themselves(parts: Tree, faulty: Faulty) -> None:
    part: Tree = pickle.loads(pickle.dumps(parts.part("3", ["x"])))
    assert (part.uri, part.sizes) == (f"{URL}/3", {"x": 1024})
    for _ in range(2):
        assert (part.fetch(["x"]) / "x").read_bytes() == bytes([3]) * 1024
    assert faulty.requests == [("GET", "/bucket/a/3/x")]
    assert (parts.fetch(["4/x"]) / "4" / "x").read_bytes() == bytes([4]) * 1024
    assert len(faulty.requests) == 2


def test_few_of_many_parts_are_held(parts: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "HELD", 1)
    monkeypatch.setenv("POSITRONIC_CACHE_SIZE", "4K")
    files = Path("/proc/self/fd")
    before = sum(_locks(files / name) for name in os.listdir(files))
    each = [parts.part(str(i), ["x"]) for i in range(6)]
    for _ in range(2):
        for i, part in enumerate(each):
            assert (part.fetch(["x"]) / "x").read_bytes() == bytes([i]) * 1024
    assert sum(_locks(files / name) for name in os.listdir(files)) <= before + 1


def _locks(file: Path) -> bool:
    try:
        return os.readlink(file).endswith(".in-use")
    except FileNotFoundError:
        return False


def test_what_changed_since_it_was_listed_is_not_mixed_in(parts: Tree, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="a/2/x", Body=b"another")
    with pytest.raises(StorageError, match=f"{URL}/2/x"):
        parts.fetch(["2/x"])
