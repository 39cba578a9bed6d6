from pathlib import Path
from typing import Any

import pytest

from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import policy_config
from getiaction.roots import local_root, require_dataset
from tests.foundation.storage.s3.files import URL, held, put, upload
from tests.s3 import Faulty


def test_home_is_found(state_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(state_root.parent))
    assert require_dataset(local_root("~/dataset")).total_episodes == 3
    assert local_root(state_root) == state_root


@pytest.mark.parametrize("root", ["https://host/dataset", "gs://bucket/dataset"])
def test_other_addresses_are_refused(root: str) -> None:
    with pytest.raises(
        GetiactionError, match=f"{root} is not a path for a dataset; expected a loc"
    ):
        local_root(root)


def test_a_dataset_in_s3_trains(s3: Any, state_root: Path) -> None:
    upload(s3, state_root)
    s3.put_object(Bucket="bucket", Key="datasets/small-too/other", Body=b"another dataset")
    data = LeRobotDataModule(root=URL, train_batch_size=34)
    data.prepare(policy_config("act", {"chunk_size": 5, "n_action_steps": 5}))
    (batch,) = data.train_dataloader()
    assert sorted(batch["index"].tolist()) == list(range(34))
    assert data.repo_id == "small"
    # Path("s3://bucket") has lost a slash.
    assert local_root(Path(URL)) == local_root(URL)
    assert held(local_root(URL)) == held(state_root)


def test_something_else_is_refused_before_it_is_fetched(s3: Any, faulty: Faulty) -> None:
    put(s3, "a", b"no dataset")
    for url in (URL, f"{URL}/nothing"):
        with pytest.raises(GetiactionError, match=rf"{url} is not a LeRobot dataset: .*; expected"):
            LeRobotDataModule(root=url)
    assert faulty.count("GET", "/small/a") == 0
