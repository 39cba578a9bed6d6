import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import StorageError
from foundation.storage.s3 import client, fetch
from foundation.storage.s3.client import _READER, Profile, load_profile, profiles_file
from tests.foundation.storage.s3.files import held
from tests.mutations import text_mutations
from tests.s3 import Faulty


def define(text: str) -> None:
    profiles_file().parent.mkdir(parents=True, exist_ok=True)
    profiles_file().write_text(text)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return profiles_file()


def test_public_buckets_are_known(config: Path) -> None:
    assert load_profile("PUBLIC") == Profile(
        endpoint="https://storage.eu-north1.nebius.cloud", region="eu-north1", anonymous=True
    )
    made = client.client("PUBLIC")
    assert made.meta.endpoint_url == "https://storage.eu-north1.nebius.cloud"
    assert made.meta.region_name == "eu-north1"


def test_a_profile_leads_to_its_own_endpoint(
    s3: Any, faulty: Faulty, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="bucket", Key="a/b", Body=b"public", ACL="public-read")
    s3.put_bucket_acl(Bucket="bucket", ACL="public-read")
    define(f'[PUBLIC]\nendpoint = "{faulty.address}"\n[lab]\nendpoint = "{endpoint}"')
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    public = fetch("s3://PUBLIC@bucket/a")
    assert held(public) == {"b": b"public"}
    assert not [headers for headers in faulty.headers if "Authorization" in headers]
    # The same bucket's name at another endpoint is another bucket.
    lab = fetch("s3://lab@bucket/a")
    assert (held(lab), lab.parent.parent != public.parent.parent) == (held(public), True)


def test_aws_profiles_are_used(
    s3: Any, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="bucket", Key="a/b", Body=b"mine")
    credentials = tmp_path / "credentials"
    credentials.write_text("[lab]\naws_access_key_id = labkey\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    define('[mine]\naws_profile = "lab"')
    fetch("s3://mine@bucket/a")
    assert "Credential=labkey/" in faulty.headers[-1]["Authorization"]
    monkeypatch.setenv("AWS_PROFILE", "lab")
    fetch("s3://bucket/a")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="S3 cannot be reached as configured: .*nobody"):
        fetch("s3://bucket/a")


def test_an_unknown_profile_is_refused_with_those_known(config: Path) -> None:
    define('[lab]\nregion = "eu"')
    with pytest.raises(
        StorageError, match=r"no profile 'lba'; known are PUBLIC, lab; .*/profiles.toml adds"
    ):
        fetch("s3://lba@bucket/a")


@pytest.mark.parametrize(
    "text",
    ["[lab", "[lab]\nendpont = 'x'", "[lab]\nanonymous = 'yes'", "lab = 1"],
    ids=["broken", "unknown", "of another kind", "no section"],
)
def test_a_wrong_file_is_refused(config: Path, text: str) -> None:
    define(text)
    with pytest.raises(
        StorageError, match=r"profiles\.toml(: field 'lab| is not TOML: ).*sections \[NAME\]"
    ):
        load_profile("lab")


def test_mutations_end_in_the_reader(config: Path) -> None:
    text = """
[lab]
endpoint = "https://s3.lab.example:9000"
region = "eu-north1"
aws_profile = "lab"
[PUBLIC]
anonymous = true
"""
    lines = []
    for content in text_mutations(text, 10_000):
        try:
            _READER.parse_toml(content, dict[str, Profile], "profiles.toml")
        except StorageError as error:
            lines.append(str(error))
    assert 0 < len(lines) < 10_000
    assert all(line.isprintable() for line in lines)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = """
import sys
import positronic.storage
heavy = {"boto3", "botocore", "s3fs", "torch", "lerobot", "lightning", "numpy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_for_s3_may_be_missing(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8")
    with pytest.raises(StorageError, match=r"needs the package boto3; .*positronic-lightning\["):
        fetch("s3://bucket/a")
