"""Raw episodes on S3 are converted as local ones, and no more of them is fetched than is used."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from positronic.dataset import LocalDataset, load_all_datasets
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from tests.positronic.vendors.lerobot.raw import FPS, record
from tests.s3 import Faulty

USED = {
    "static.json",
    "meta.json",
    "robot_state.ee_pose.parquet",
    "grip.parquet",
    "robot_commands.pose.parquet",
    "target_grip.parquet",
    *(
        f"image.{name}{end}"
        for name in ("wrist", "exterior")
        for end in (".mp4", ".frames.parquet")
    ),
}


def test_workers_fetch_what_the_codec_needs(tmp_path: Path, s3: Any, faulty: Faulty) -> None:
    for index in range(2):
        for path in sorted(record(tmp_path / "raw", index).iterdir()):
            key = f"raw/{path.relative_to(tmp_path / 'raw')}"
            s3.put_object(Bucket="bucket", Key=key, Body=path.read_bytes())
    codec = codecs.eepose_absolute(image_size=(64, 64))
    remote = load_all_datasets("s3://bucket/raw")
    report = convert_dataset(remote, codec, tmp_path / "out", FPS, Options(workers=2))
    assert (report.episodes, report.refused) == (2, ())
    gets = [path.rpartition("/")[2] for m, path in faulty.requests if m == "GET" and "/0" in path]
    assert set(gets) == USED
    assert len(gets) == 2 * len(USED), "each file once, whichever process wanted it"
    local = LocalDataset(tmp_path / "raw")
    convert_dataset(local, codec, tmp_path / "local", FPS, Options(workers=0))
    tables = [next((tmp_path / name / "data").rglob("*.parquet")) for name in ("out", "local")]
    assert pq.read_table(tables[0]).equals(pq.read_table(tables[1]))
    videos = [
        [path.read_bytes() for path in sorted((tmp_path / name / "videos").rglob("*.mp4"))]
        for name in ("out", "local")
    ]
    assert videos[0] == videos[1]
