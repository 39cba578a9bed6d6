"""Damaged documents of earlier conversions: one line, and nothing lost beside them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import FoundationError, StorageError
from positronic.dataset import LocalDataset
from positronic.errors import DatasetError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import job, stored_episode
from positronic.vendors.lerobot.conversion.append import append_dataset
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.verification.verify import verify_dataset
from tests.mutations import mutations
from tests.positronic.vendors.lerobot.conversion.kills import contents, files_in, killed
from tests.positronic.vendors.lerobot.raw import FPS, record

pytestmark = [
    # The fork does nothing but convert, and takes no lock of another thread.
    pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning"),
]

HERE = Options(workers=0)
GO_ON = Options(workers=0, resume=True)
CODEC = codecs.eepose_state()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    root = tmp_path_factory.mktemp("raw")
    for index, steps in enumerate((6, 3, 4)):
        record(root, index, steps=steps, size=None)
    return LocalDataset(root)


@pytest.fixture(scope="module")
def whole(raw: LocalDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "out"
    convert_dataset(raw, CODEC, root, FPS, HERE)
    return root


def require_one_line(read: Callable[[bytes], object], document: Any) -> None:
    messages = []
    for content in mutations(document, 10_000):
        try:
            read(content)
        except FoundationError as error:
            messages.append(str(error))
    assert len(messages) > 1000
    assert [message for message in messages if not message.isprintable()] == []


def test_mutations_of_a_provenance(whole: Path) -> None:
    document = json.loads((whole / "meta" / "provenance.json").read_text())
    document["appended"] = [{"commit": "a", "episodes": 1, "frames": 4, "refused": []}]
    document |= {"pixel_counts": {}, "repaired": [], "job": {"versions": {}}}
    require_one_line(Provenance.parse, document)


def begun(raw: LocalDataset, output: Path) -> Path:
    """A conversion that was killed when an episode or two were done."""
    output.parent.mkdir(parents=True)
    work = lambda: convert_dataset(raw, CODEC, output, FPS, GO_ON)  # noqa: E731
    assert killed(work, files_in(output.parent), 20)
    work_dir = output.parent / f".{output.name}.partial"
    assert stored_episode.done(work_dir / "episodes")
    return work_dir


def test_mutations_of_a_job_and_an_episode(raw: LocalDataset, tmp_path: Path) -> None:
    work_dir = begun(raw, tmp_path / "data" / "out")
    document = json.loads((work_dir / "job.json").read_text())
    other = job.parse(json.dumps(document), "job.json")

    def compare(content: bytes) -> None:
        job.differences(job.parse(content, "job.json"), other)

    require_one_line(compare, document)
    document = json.loads((work_dir / "episodes" / "000000" / "episode.json").read_text())
    document["pixels"] = {"camera": [[1] * 8] * 3}

    def read(content: bytes) -> None:
        stored_episode.READER.parse_json(content, stored_episode.StoredEpisode, "episode.json")

    require_one_line(read, document)


@pytest.mark.parametrize(
    "content", [b"", b"[" * 10**6, b'{"videos": {"camera": "/etc/passwd"}}', b"\xff\xfe"]
)
def test_a_damaged_episode_is_encoded_again(
    raw: LocalDataset, whole: Path, tmp_path: Path, content: bytes
) -> None:
    output = tmp_path / "data" / "out"
    work_dir = begun(raw, output)
    (work_dir / "episodes" / "000000" / "episode.json").write_bytes(content)
    convert_dataset(raw, CODEC, output, FPS, GO_ON)
    assert contents(output) == contents(whole)


def test_a_damaged_job_is_told(raw: LocalDataset, tmp_path: Path) -> None:
    output = tmp_path / "data" / "out"
    work_dir = begun(raw, output)
    (work_dir / "job.json").write_text('{"contract": 1}')
    with pytest.raises(StorageError, match=r"job\.json: field .*start over after `rm -r") as told:
        convert_dataset(raw, CODEC, output, FPS, GO_ON)
    assert len(str(told.value).splitlines()) == 1
    shutil.rmtree(work_dir)
    assert convert_dataset(raw, CODEC, output, FPS, HERE).episodes == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"episodes": [{"source": 1, "frames": 3}] * 3}, "episodes.0.source"),
        ({"episodes": "all"}, "'episodes': expected a valid list"),
        ({"options": {"vcodec": "../../x"}}, "options.vcodec is '../../x', expected one of h264"),
        ({"refused": [1]}, "refused.0"),
    ],
)
def test_a_foreign_provenance_is_told(
    raw: LocalDataset, whole: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    root = tmp_path / "data" / "out"
    shutil.copytree(whole, root)
    document = json.loads((root / "meta" / "provenance.json").read_text())
    (root / "meta" / "provenance.json").write_text(json.dumps(document | change))
    with pytest.raises(DatasetError) as error:
        append_dataset(raw, CODEC, root, HERE)
    assert told in str(error.value)
    if "options" not in change:
        assert told in "".join(map(str, verify_dataset(root, workers=1).faults))


def test_what_no_dataset_can_hold_costs_only_its_episode(tmp_path: Path) -> None:
    """Half a surrogate pair in a task, a number beyond float32; control characters are text."""
    record(tmp_path / "raw", 0, size=None, statics={"task": "press\x1b[2J\x00 twice\n"})
    half = record(tmp_path / "raw", 1, size=None)
    static = json.loads((half / "static.json").read_text())
    (half / "static.json").write_text(json.dumps(static | {"task": "half \ud800"}))
    robot = record(tmp_path / "raw", 2, size=None)
    (robot / "static.json").write_text(json.dumps(static | {"robot_type": "\udfff"}))
    record(tmp_path / "raw", 3, size=None, far=1e300)
    report = convert_dataset(LocalDataset(tmp_path / "raw"), CODEC, tmp_path / "out", FPS, HERE)
    assert report.episodes == 1
    assert len(report.refused) == 3
    assert all(reason.isprintable() for _, reason in report.refused)
    assert verify_dataset(tmp_path / "out", workers=1).faults == ()
    assert "NaN" not in (tmp_path / "out" / "meta" / "stats.json").read_text()
