"""The proxy does what it is told; else tests of faults would pass without any."""

from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from tests.s3 import Faulty

BODY = b"x" * 4096


def client() -> Any:
    return boto3.client("s3", config=Config(retries={"total_max_attempts": 1}, read_timeout=1))


def get(s3: Any) -> bytes:
    return bytes(s3.get_object(Bucket="bucket", Key="a")["Body"].read())


def test_without_faults_everything_passes(s3: Any, faulty: Faulty) -> None:
    through = client()
    through.put_object(Bucket="bucket", Key="a", Body=BODY)
    assert get(through) == get(s3) == BODY
    assert through.head_object(Bucket="bucket", Key="a")["ContentLength"] == len(BODY)
    assert faulty.count("PUT", "/bucket/a") == faulty.count("GET") == faulty.count("HEAD") == 1


def test_faults_strike_as_often_as_they_are_told(s3: Any, faulty: Faulty) -> None:
    through = client()
    faulty.status(503, method="PUT", times=2)
    for _ in range(2):
        with pytest.raises(ClientError, match="503"):
            through.put_object(Bucket="bucket", Key="a", Body=BODY)
    faulty.cut(100, method="PUT")
    with pytest.raises(BotoCoreError, match="closed"):
        through.put_object(Bucket="bucket", Key="a", Body=BODY)
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket")
    faulty.lose(method="PUT")
    with pytest.raises(BotoCoreError, match="closed"):
        through.put_object(Bucket="bucket", Key="a", Body=BODY)
    assert get(s3) == BODY
    faulty.cut(100)
    faulty.slow(1.5)
    for _ in range(2):
        with pytest.raises(BotoCoreError, match="total bytes read|Connection broken|Read timeout"):
            get(through)
    assert get(through) == BODY


def test_connections_are_refused_until_they_are_not(s3: Any, faulty: Faulty) -> None:
    faulty.refuse()
    with pytest.raises(EndpointConnectionError):
        client().list_buckets()
    faulty.enter()
    assert [bucket["Name"] for bucket in client().list_buckets()["Buckets"]] == ["bucket"]
