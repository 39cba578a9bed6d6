import gc
import weakref
from typing import Any

import pytest

from foundation.storage.s3 import client


def test_a_changed_environment_has_clients_of_its_own(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = client.client(None)
    assert client.client(None) is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert client.client(None) is not first
    # Each takes 10 MB and more; a process that changes its environment often kept them all.
    former = weakref.ref(first)
    del first
    gc.collect()
    assert former() is None
