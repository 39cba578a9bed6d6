import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from foundation.documents import (
    Document,
    InvalidDocument,
    Reader,
    RelativeName,
    inside,
    plain,
    relative_name,
)
from tests.mutations import mutations


class Camera(Document):
    name: RelativeName
    size: Annotated[tuple[int, int], Field(strict=False)]
    fps: Annotated[float, Field(gt=0)] = 30.0


class Rig(Document):
    cameras: list[Camera]
    arms: dict[str, int]
    note: str | None = None


RIG = {
    "cameras": [{"name": "wrist/left.mp4", "size": [640, 480], "fps": 29.97}],
    "arms": {"left": 7, "right": 6},
    "note": "α",
    "unknown": {"is": ["left out"]},
}
READER = Reader(mend="record it again", size=4096, depth=6, values=60)


def refused(content: str | bytes, kind: Any = Rig, reader: Reader = READER) -> str:
    with pytest.raises(InvalidDocument) as error:
        reader.parse_json(content, kind, "rig.json")
    (line,) = str(error.value).splitlines()
    assert line.startswith("rig.json")
    assert line.endswith("; record it again")
    assert line.isprintable()
    assert len(line) < 500
    return line


def test_a_document_becomes_typed(tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    path.write_text(json.dumps(RIG), encoding="utf-8-sig")
    rig = READER.load_json(path, Rig)
    assert rig.cameras == [Camera(name="wrist/left.mp4", size=(640, 480), fps=29.97)]
    assert (rig.arms, rig.note, hasattr(rig, "unknown")) == (RIG["arms"], "α", False)
    assert READER.parse_json(b"[1, 2]", list[int], "list") == [1, 2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cameras": None}, "field 'cameras': expected a valid list, found None"),
        ({"arms": {"left": "7"}}, "field 'arms.left': expected a valid integer, found '7'"),
        ({"arms": {"left": True}}, "field 'arms.left': expected a valid integer, found True"),
        ({"note": ["x"]}, "field 'note': expected a valid string, found a list"),
        ({"cameras": [{"size": [1, 2]}]}, "field 'cameras.0.name' is missing"),
        (
            {"cameras": [{"name": "../x", "size": [1, 2]}]},
            "field 'cameras.0.name': expected a plain relative path such as 'data/file.parquet', "
            "found '../x'",
        ),
        ({"note": "\ud800"}, "holds text that is not Unicode: '\\ud800'"),
        ({"arms": {"\udfff": 1}}, "holds text that is not Unicode"),
        ({"note": float("nan")}, "holds the number nan; expected finite numbers"),
        ({"arms": {"a": float("-inf")}}, "holds the number -inf"),
        ({"arms": {str(i): i for i in range(40)}}, "holds more than the 60 values expected"),
        ({"unknown": [[[[[[]]]]]]}, "is nested more than 6 levels deep"),
        ({"note": "a" * 4096}, "is larger than the 4096 bytes expected"),
        ({"arms": {"a": 10**400}, "note": 10**400}, "a number of more than 90 digits"),
        (
            {"\x1b]0;x\x07": 1, "arms": {"\x1b[2J": "\x1b[2J"}},
            r"field 'arms.\x1b[2J': expected a valid integer, found '\x1b[2J'",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], told: str) -> None:
    assert told in refused(json.dumps(RIG | change))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not JSON: Expecting value"),
        (b"{", "is not JSON"),
        (b'{"a": 1}\xff', "is not JSON: 'utf-8' codec can't decode"),
        ('{"arms": "\ud800"}', "holds text that is not Unicode"),
        (b"[" * 2000 + b"]" * 2000, "is nested"),
        (b"[" * 4000, "is nested too deeply"),
        (b"9" * 4096, "found an? ?number|found 9|expected|is not JSON"),
        (b"[" + b"[]," * 1000 + b"1]", "holds more than the 60 values expected"),
        (b"[]", "expected a valid dictionary|expected an object|found a list"),
    ],
)
def test_what_is_no_document(content: bytes | str, told: str) -> None:
    with pytest.raises(InvalidDocument, match=told):
        READER.parse_json(content, Rig, "rig.json")
    refused(content)


def test_too_many_values_are_not_even_parsed() -> None:
    content = b"[" + b"[]," * 5_000_000 + b"1]"
    begun = time.process_time()
    told = refused(content, reader=Reader(mend="record it again", values=1000))
    assert "more than the 1000 values" in told
    assert time.process_time() - begun < 1.0  # parsed, it takes seconds and 400 MB


def test_nan_where_it_is_a_number() -> None:
    reader = Reader(allow_nan=True)
    assert str(reader.parse_json("[NaN, -Infinity]", list[float], "x")) == "[nan, -inf]"


@pytest.mark.parametrize("make", ["fifo", "directory", "device"])
def test_only_regular_files_are_read(make: str, tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InvalidDocument, match=r"rig\.json is not a regular file; record it again"):
        READER.load_json(path, Rig)


def test_size_is_bounded_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(InvalidDocument, match="is larger than the 4096 bytes expected"):
        READER.load_json(path, Rig)
    with pytest.raises(FileNotFoundError):
        READER.load_json(tmp_path / "absent", Rig)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: *b",
        "!!bool abc",
        "!!int ''",
        "!!timestamp 'abc'",
        "2020-99-99",
        "&a [*a]",
        "? [a]\n: b",
        "!!binary '===='",
        "a: [0x" + "f" * 3000 + "]",
        "!!python/object/apply:os.system [touch owned]",
        "\x00",
        '"\\ud800"',
        "---\na\n---\nb",
        "[" * 3000,
        "- " * 2000,
        "a: .inf",
        "a: .nan",
        "a: [&b0 [1]"
        + "".join(f",&b{i} [{','.join([f'*b{i - 1}'] * 9)}]" for i in range(1, 20))
        + "]",
    ],
)
def test_yaml_that_does_not_fit(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidDocument) as error:
        READER.parse_yaml(text, dict[str, int], "rig.yaml")
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_yaml_and_toml_become_typed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("left: 7\nright: 6\n")
    (tmp_path / "a.toml").write_text("left = 7\nright = 6\n")
    assert READER.load_yaml(tmp_path / "a.yaml", dict[str, int]) == RIG["arms"]
    assert READER.load_toml(tmp_path / "a.toml", dict[str, int]) == RIG["arms"]
    (tmp_path / "a.toml").write_text("left = 0x" + "f" * 3000)
    with pytest.raises(InvalidDocument, match="more than 90 digits"):
        READER.load_toml(tmp_path / "a.toml", dict[str, str])


NAMES = ["a", "data/chunk-000/file-000.parquet", "…/é.txt", "a b", "~", "-rf", "a" * 255, ".hidden"]
NO_NAMES = [
    "",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    ".",
    "..",
    "a\\b",
    "C:\\x",
    "a\x00b",
    "a\nb",
    "\x1b[2J",
    "\u202ea",
    "\ud800",
    "a" * 256,
    "é" * 128,
    "a/" * 600 + "a",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_are_no_plain_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a plain relative path"):
        relative_name(name)
    with pytest.raises(InvalidDocument, match="must not name the file .*: expected a plain"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", NAMES)
def test_plain_names(name: str, tmp_path: Path) -> None:
    assert relative_name(name) == name
    path = inside(tmp_path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert path.relative_to(tmp_path).as_posix() == name


def test_a_folder_that_is_a_link_leads_nowhere(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    (tmp_path / "outside").mkdir()
    (dataset / "within").mkdir(parents=True)
    (dataset / "link").symlink_to(tmp_path / "outside")
    (dataset / "loop").symlink_to(dataset / "loop")
    (dataset / "fine").symlink_to(dataset / "within")
    for name in ("link/file", "link/deep/file", "loop/file"):
        with pytest.raises(InvalidDocument, match=r"must not name the file"):
            inside(dataset, name)
    assert inside(dataset, "fine/file") == dataset / "fine" / "file"
    # The directory itself may be reached by one.
    (tmp_path / "alias").symlink_to(dataset)
    assert inside(tmp_path / "alias", "within/file").parent.samefile(dataset / "within")


def test_mutations_end_in_the_reader(tmp_path: Path) -> None:
    reader = Reader(mend="record it again", values=10_000)
    read, lines = 0, list[str]()
    for content in mutations(RIG, 10_000):
        try:
            rig = reader.parse_json(content, Rig, "rig.json")
        except InvalidDocument as error:
            lines.append(str(error))
            continue
        read += 1
        for camera in rig.cameras:
            inside(tmp_path, camera.name)
    assert all(line.isprintable() for line in lines)
    assert 0 < read < 9_000


def test_plain_is_what_json_gives_back() -> None:
    assert plain({1: (2.5, None)}) == {"1": [2.5, None]}


TEN = ", ".join(["*a{}"] * 10)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "a0: &a0 [x]\n"
            + "".join(f"a{i}: &a{i} [{TEN.replace('{}', str(i - 1))}]\n" for i in range(1, 10)),
            "aliases that stand for more than 2000 values",
        ),
        (
            "a0: &a0 {x: 1}\n"
            + "".join(
                f"a{i}: &a{i}\n  <<: [{TEN.replace('{}', str(i - 1))}]\n" for i in range(1, 10)
            ),
            "aliases that stand for more than 2000 values",
        ),
        ("a: &a [*a]", "aliases that stand for more than 2000 values"),
        ("a: &a\n  <<: *a", "aliases that stand for more than 2000 values"),
        ("a: 1:" + ":".join(["59"] * 100_000), "a number of base 60; quote what is text"),
        ("a: 12:30", "12:30, a number of base 60; quote what is text"),
        ("a: 1:30.5", "1:30.5, a number of base 60"),
        ("a: " + "9" * 100_000, "4300 digits"),
    ],
    ids=["lists", "merges", "itself", "itself merged", "colons", "a time", "a float", "digits"],
)
def test_a_small_yaml_is_read_in_a_small_time(text: str, told: str) -> None:
    reader = Reader(size=1 << 20, values=2000)
    began = time.process_time()
    with pytest.raises(InvalidDocument, match=told):
        reader.parse_yaml(text, dict[str, Any], "config.yaml")
    assert time.process_time() - began < 5


def test_aliases_within_reason_are_read() -> None:
    text = "a: &x {b: 1}\nc:\n  <<: *x\n  d: [*x, *x]\ne: '12:30'\nf: 0x1F\ng: -1.5e+3"
    found = READER.parse_yaml(text, dict[str, Any], "config.yaml")
    assert found["c"] == {"b": 1, "d": [{"b": 1}, {"b": 1}]}
    assert (found["e"], found["f"], found["g"]) == ("12:30", 31, -1500.0)
