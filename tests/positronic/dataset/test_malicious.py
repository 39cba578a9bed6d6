"""Episodes made to do harm: each costs itself alone, in one line, and touches nothing else."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation.documents import InvalidDocument
from positronic.dataset import Episode, load_all_datasets, statics
from positronic.dataset.edits import parse_log
from positronic.dataset.recorded import Meta
from positronic.dataset.subsets import where
from positronic.errors import DatasetError, EpisodeError
from tests.memory import at_most
from tests.mutations import mutations

from .conftest import record

Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good") / "data"
    for task in "abc":
        record(root, frames=5, size=(16, 32), task=task)
    return root


def touch(episode: Episode) -> None:
    """Read all that there is."""
    assert episode["task"]
    assert episode.uid
    assert episode.meta["path"]
    assert episode.duration_ns >= 0
    for signal in episode.signals.values():
        assert len(np.asarray(signal.values())) == len(signal.timestamps()) == len(signal)
        assert signal.start_ts == signal.timestamps()[0]
        assert signal.shape is not None


def pipe(name: str) -> Spoil:
    def spoil(path: Path) -> None:
        (path / name).unlink()
        os.mkfifo(path / name)

    return spoil


def link(name: str, target: str) -> Spoil:
    def spoil(path: Path) -> None:
        (path / name).unlink()
        (path / name).symlink_to(target)

    return spoil


def text(name: str, content: str) -> Spoil:
    return lambda path: (path / name).write_text(content)


def table(name: str, **columns: Any) -> Spoil:
    return lambda path: pq.write_table(pa.table(columns), path / f"{name}.parquet")


def directory(path: Path) -> None:
    (path / "static.json").unlink()
    (path / "static.json").mkdir()


def sparse(path: Path) -> None:
    os.truncate(path / "static.json", 1 << 40)


def huge_picture(path: Path) -> None:
    with av.open(str(path / "image.wrist.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=100, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 8704, 4000, "yuv420p"
        stream.codec_context.thread_count = 1
        frame = av.VideoFrame(8704, 4000, "yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    changed_index(path)


def changed_index(path: Path, **metadata: str) -> None:
    """Another schema metadata; without any, no checksum of the video either."""
    index = path / "image.wrist.frames.parquet"
    pq.write_table(pq.read_table(index).replace_schema_metadata(metadata), index)


def playlist(path: Path) -> None:
    """A list of other files is what FFmpeg takes it for, by its first line."""
    outside = path.parent / "outside.mp4"
    shutil.copy(path / "image.wrist.mp4", outside)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", str(outside), "#EXT-X-ENDLIST"]
    (path / "image.wrist.mp4").write_text("\n".join(lines))
    changed_index(path)


def concatenation(path: Path) -> None:
    shutil.copy(path / "image.wrist.mp4", path / "other.bin")
    (path / "image.wrist.mp4").write_text("ffconcat version 1.0\nfile other.bin\n")
    changed_index(path)


N = 40_000_000
EPISODES: dict[str, Spoil] = {
    "pipe as static": pipe("static.json"),
    "device as static": link("static.json", "/dev/zero"),
    "directory as static": directory,
    "loop as static": link("static.json", "static.json"),
    "lone surrogate": text("static.json", '{"task": "\\ud800"}'),
    "lone surrogate as a key": text("static.json", '{"task": "a", "\\udfff": 1}'),
    "deeply nested": text("static.json", '{"task": "a", "x": ' + "[" * 10**5 + "]" * 10**5 + "}"),
    "nested further": text("static.json", '{"task": "a", "x": ' + '{"a":' * 99 + "1" + "}" * 100),
    "list as static": text("static.json", "[1]"),
    "a terabyte of static": sparse,
    "bytes that are a number": text("static.json", '{"x": {"__bytes_b64__": 5}}'),
    "bytes that are none": text("static.json", '{"x": {"__bytes_b64__": "%"}}'),
    "pipe as meta": pipe("meta.json"),
    "time of creation as text": text("meta.json", '{"created_ts_ns": "\x1b[2J"}'),
    "negative duration": text("meta.json", '{"uid": "x", "duration_ns": -1}'),
    "identity as list": text("meta.json", '{"uid": ["x"]}'),
    "long number": text("meta.json", '{"created_ts_ns": ' + "9" * 5000 + "}"),
    "pipe as signal": pipe("grip.parquet"),
    "device as signal": link("grip.parquet", "/dev/zero"),
    "loop as signal": link("grip.parquet", "grip.parquet"),
    "bomb": lambda path: table("grip", timestamp=np.zeros(N, int), value=np.zeros(N))(path),
    "50 years": table("grip", timestamp=[0, 17 * 10**17], value=[0.0, 1.0]),
    "the last time": table("grip", timestamp=[2**63 - 2, 2**63 - 1], value=[0.0, 1.0]),
    "backwards": table("grip", timestamp=[10, 5], value=[0.0, 1.0]),
    "times that are no numbers": table("grip", timestamp=[float("nan")], value=[0.0]),
    "lists of times": table("grip", timestamp=[[1], [2]], value=[0.0, 1.0]),
    "values of structs": table("grip", timestamp=[1], value=[{"a": 1}]),
    "pipe as video": pipe("image.wrist.mp4"),
    "device as video": link("image.wrist.mp4", "/dev/zero"),
    "pipe as index": pipe("image.wrist.frames.parquet"),
    "huge picture": huge_picture,
    "huge size": lambda path: changed_index(path, **{"positronic.frame_size": "99999 99999"}),
    "other size": lambda path: changed_index(path, **{"positronic.frame_size": "15 900"}),
    "negative size": lambda path: changed_index(path, **{"positronic.frame_size": "-1 -1"}),
    "list of files": playlist,
    "concatenation": concatenation,
    "own log": text("edits.jsonl", '{"op": "drop"}'),
    "own log with a surrogate": text(
        "edits.jsonl", '{"op": "set_static", "v": 1, "ep": "u", "data": {"task": "\\ud83d"}}'
    ),
    "pipe as own log": lambda path: os.mkfifo(path / "edits.jsonl"),
}


def around(root: Path) -> list[tuple[str, int, int]]:
    """Everything below a directory, by name, size and time of change."""
    return sorted(
        (str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")
    )


@pytest.mark.parametrize("with_log", [False, True])
@pytest.mark.parametrize("name", EPISODES)
def test_an_episode_costs_itself_alone(
    name: str, with_log: bool, good: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(good, root)
    EPISODES[name](root / "000000000000" / "000000000001")
    if with_log:  # then the identities of all episodes are read when they are opened
        (root / "edits.jsonl").write_text('{"op": "drop", "v": 1, "ep": "of another dataset"}\n')
    before = around(tmp_path)
    dataset = load_all_datasets(root)
    assert len(dataset) == 3
    touch(dataset[0])
    touch(dataset[2])
    with at_most(1 << 30), pytest.raises(EpisodeError) as refused:
        touch(dataset[1])
    said = str(refused.value)
    assert len(said.splitlines()) == 1
    assert len(said) < 1500
    assert said.isprintable()
    assert "000000000001" in said
    assert where(dataset, {"task": "c"})[-1]["task"] == "c"
    assert around(tmp_path) == before


def test_links_in_circles_neither_end_nor_double_a_dataset(good: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(good, root)
    (root / "again").symlink_to(root)
    (root / "loop").symlink_to("loop")
    (root / "000000000000" / "000000000007").symlink_to("000000000007")
    (root / "000000001000").symlink_to("000000001000")
    assert [episode["task"] for episode in load_all_datasets(root)] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["pipe", "directory", "surrogate", "deep", "broken link"])
def test_a_log_for_all_episodes_that_cannot_be_read_stops_the_reading(
    kind: str, good: Path, tmp_path: Path
) -> None:
    """Who wrote it meant something by it: perhaps that an episode must not be used."""
    root = tmp_path / "data"
    shutil.copytree(good, root)
    log = root / "edits.jsonl"
    match kind:
        case "pipe":
            os.mkfifo(log)
        case "directory":
            log.mkdir()
        case "broken link":
            log.symlink_to("nowhere")
        case "surrogate":
            log.write_text('{"op": "set_static", "v": 1, "ep": "u", "data": {"task": "\\ud800"}}')
        case _:
            log.write_text("[" * 10**5)
    with pytest.raises(DatasetError, match=r"edits\.jsonl") as refused:
        load_all_datasets(root)
    assert len(str(refused.value).splitlines()) == 1


def test_a_line_of_a_log_ends_where_json_says(tmp_path: Path) -> None:
    """Python's splitlines also ends one at U+2028, which JSON has inside of texts."""
    data = {"task": "one\u2028two"}
    line = json.dumps({"op": "set_static", "v": 1, "ep": "u", "data": data}, ensure_ascii=False)
    (edit,) = parse_log(line.encode(), "log")["u"]
    assert getattr(edit, "data", None) == data


STATIC = {
    "task": "stack the cubes",
    "grip_convention": {"open": 1.0, "closed": 0.0},
    "joint_names": ["a", "b"],
    "mesh": {"__bytes_b64__": "AAE="},
    "simulation.seed": 7,
}
META = {
    "schema_version": 1,
    "created_ts_ns": 1_760_000_000_000_000_000,
    "uid": "0" * 32,
    "duration_ns": 10**10,
    "writer": {"python": "3.12.1", "version": "0.2.1", "name": "x.y", "git": {"dirty": False}},
}
EDIT = {"op": "set_static", "v": 1, "ep": "0" * 32, "data": STATIC}
DROP = {"op": "drop", "v": 1, "ep": "0" * 32}


def read_static(content: bytes) -> object:
    return statics.parse(content, "static.json")


def read_meta(content: bytes) -> object:
    return statics.READER.validate(statics.parse(content, "meta.json"), Meta, "meta.json")


def read_edits(content: bytes) -> object:
    return parse_log(content, "edits.jsonl")


@pytest.mark.parametrize(
    ("document", "read", "error"),
    [
        (STATIC, read_static, InvalidDocument),
        (META, read_meta, InvalidDocument),
        (EDIT, read_edits, DatasetError),
        (DROP, read_edits, DatasetError),
    ],
)
def test_damaged_documents_are_read_or_refused(
    document: dict[str, Any], read: Callable[[bytes], object], error: type[Exception]
) -> None:
    said = []
    for content in mutations(document, 10_000):
        try:
            read(content)
        except error as refusal:
            said.append(str(refusal))
    assert len(said) > 2_000
    assert all(len(line.splitlines()) == 1 for line in said)


@pytest.mark.parametrize("name", ["q.parquet", "image.wrist.frames.parquet", "image.wrist.mp4"])
def test_damaged_signals_are_read_or_refused(name: str, good: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(good, root)
    path = root / "000000000000" / "000000000001"
    changed_index(path)
    whole = (path / name).read_bytes()
    chance, refused = random.Random(name), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            place = chance.randrange(len(damaged))
            if chance.random() < 0.5:
                damaged[place] = chance.randrange(256)
            else:
                damaged[place : place + chance.choice((1, 4, 16))] = b""
        (path / name).write_bytes(damaged)
        episode = load_all_datasets(root)[1]
        signal = episode.signals[name.split(".")[0] if name[0] == "q" else "image.wrist"]
        try:
            assert len(np.asarray(signal.values())) == len(signal.timestamps())
        except EpisodeError:
            refused += 1
    assert refused > 50
