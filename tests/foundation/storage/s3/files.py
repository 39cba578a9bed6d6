"""Small directories, here and in S3."""

import subprocess
import sys
from pathlib import Path
from typing import Any

URL = "s3://bucket/datasets/small"


def made(directory: Path, files: dict[str, bytes]) -> Path:
    """Write the files."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def held(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def put(s3: Any, name: str, content: bytes) -> None:
    s3.put_object(Bucket="bucket", Key=f"datasets/small/{name}", Body=content)


def objects(s3: Any) -> dict[str, bytes]:
    """What is below ``URL``, as a tool sees it that knows no manifest."""
    listed = s3.list_objects_v2(Bucket="bucket", Prefix="datasets/small/").get("Contents", [])
    return {
        item["Key"].removeprefix("datasets/small/"): s3.get_object(
            Bucket="bucket", Key=item["Key"]
        )["Body"].read()
        for item in listed
    }


def upload(s3: Any, root: Path) -> list[str]:
    files = held(root)
    for name, content in files.items():
        put(s3, name, content)
    return sorted(files)


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own, which may be killed."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
    )
