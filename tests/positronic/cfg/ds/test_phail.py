from pathlib import Path
from typing import Any

import pytest

from positronic.cfg.ds import phail
from positronic.dataset import DatasetWriter
from tests.s3 import Faulty

BUCKET = "positronic-public"
NAMES = {"phail": "phail", "sim_stack_cubes": "sim-stack-cubes", "sim_pick_place": "sim-pick-place"}


@pytest.fixture
def public(s3: Any, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """A service that has the public bucket, which everyone may read without credentials."""
    s3.create_bucket(Bucket=BUCKET, ACL="public-read")
    for name in NAMES.values():
        for below in ("", "v1.0/training/"):
            root = tmp_path / "raw" / name / below
            with DatasetWriter(root).new_episode() as episode:
                episode.set_static("name", name + below)
                episode.append("grip", 1.0, 0)
            for path in root.glob("0*/0*/*"):
                key = f"datasets/{name}/{path.relative_to(tmp_path / 'raw' / name)}"
                s3.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes(), ACL="public-read")
    for variable in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    profiles = tmp_path / "config" / "positronic" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(f'[PUBLIC]\nendpoint = "{faulty.address}"\n')
    return faulty


@pytest.mark.parametrize("name", NAMES)
def test_public_datasets_come_from_their_buckets(public: Faulty, name: str) -> None:
    dataset = getattr(phail, name).instantiate()
    assert len(dataset) == 1, "what lies below is another version"
    assert public.count("GET", "static.json") == public.count("GET", "parquet") == 0
    assert dataset[0]["name"] == NAMES[name]
    address = f"s3://PUBLIC@{BUCKET}/datasets/{NAMES[name]}/000000000000/000000000000"
    assert dataset[0].meta["path"] == address
    assert public.count("GET", "parquet") == 0
    assert len(dataset[0]["grip"]) == 1


def test_a_copy_of_a_public_dataset(public: Faulty, tmp_path: Path) -> None:
    copied = phail.phail(path=str(tmp_path / "raw" / "phail"), grip_open=0)
    assert copied[0]["grip_convention"]["open"] == 0
    assert public.requests == []
