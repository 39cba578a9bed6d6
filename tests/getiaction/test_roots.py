from pathlib import Path

import pytest

from getiaction.errors import GetiactionError
from getiaction.roots import local_root, require_dataset


def test_home_is_found(state_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(state_root.parent))
    assert require_dataset(local_root("~/dataset"))["total_episodes"] == 3
    assert local_root(state_root) == state_root


@pytest.mark.parametrize("root", ["https://host/dataset", "gs://bucket/dataset"])
def test_other_addresses_are_refused(root: str) -> None:
    with pytest.raises(GetiactionError, match=f"{root} is no place for a dataset; expected a loc"):
        local_root(root)
