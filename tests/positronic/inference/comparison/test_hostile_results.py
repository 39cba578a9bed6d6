"""Results that somebody else wrote: refused in one line, or shown as text."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from positronic.errors import ContractError, DatasetError
from positronic.inference.comparison.contest import all_contests, dumps, summary_lines
from positronic.inference.comparison.entrants import READER, Entrant, Results, require_comparable
from positronic.inference.comparison.page import render_page
from tests.chromium import needs_chromium
from tests.mutations import mutations
from tests.positronic.inference.comparison.test_compare import ORIGIN, compare
from tests.positronic.inference.sample import sample_run

SCRIPT = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"

type Document = dict[str, Any]


def good() -> Document:
    document: Document = json.loads(sample_run(6, failures=(1,)).dumps())
    return document


def set_at(*path: str | int, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        inner: Any = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


REFUSED = {
    "script for a seed": set_at("episodes", 1, "seed", value=SCRIPT),
    "script for starved steps": set_at("summary", "starved_steps", value=SCRIPT),
    "script for an ending": set_at("episodes", 1, "ended_by", value=SCRIPT),
    "script for an ending of the summary": set_at("summary", "ended_by", value={SCRIPT: 1}),
    "script for a duration": set_at("run", "inference_ms", "median", value=SCRIPT),
    "script for a delay": set_at("inference_delays", value=[SCRIPT]),
    "a list for a task": set_at("task", value=[SCRIPT]),
    "a number that is no number": set_at("control_fps", value=float("nan")),
    "an endless rollout": set_at("simulation_time", value=float("inf")),
    "no control rate": set_at("control_fps", value=0),
    "a huge seed": set_at("episodes", 1, "seed", value=10**400),
    "a huge number of rollouts": set_at("num_iterations", value=2**63),
    "a huge number of steps": set_at("episodes", 1, "steps", value=10**300),
    "steps less than none": set_at("episodes", 1, "steps", value=-1),
    "one seed twice": set_at("episodes", 1, "seed", value=1000),
    "a seed that was not planned": set_at("episodes", 1, "seed", value=5),
    "more successes than rollouts": set_at("summary", "successes", value=99),
    "success that is a failure": set_at("episodes", 1, "success", value=True),
    "another's version": set_at("format", value=SCRIPT),
    "a policy that is a path": set_at("run", "policy", value="../../etc/passwd"),
    "nesting without end": set_at("run", "policy", value=json.loads("[" * 500 + "]" * 500)),
    "text that is no Unicode": set_at("task", value="\ud800"),
}


def tree(root: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(root)): path.lstat().st_mtime_ns
        for path in sorted(root.rglob("*"))
        if not path.is_dir()
    }


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = good()
    REFUSED[name](document)
    for directory, content in (("good", good()), ("bad", document)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "results.json").write_text(json.dumps(content))
    before = tree(tmp_path)
    runs = f"--runs=[{tmp_path}/good,{tmp_path}/bad]"
    assert compare(runs, f"--output_dir={tmp_path}/out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/bad/results.json" in line
    assert len(line) < 600
    assert line.isprintable()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "empty", "binary", "huge"])
def test_what_is_no_file_of_results(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for directory in ("good", "bad"):
        (tmp_path / directory).mkdir()
    (tmp_path / "good" / "results.json").write_text(json.dumps(good()))
    place = tmp_path / "bad" / "results.json"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "huge":
        with place.open("wb") as file:
            file.truncate(1 << 40)
    else:
        place.write_bytes(b"" if kind == "empty" else os.urandom(500))
    assert compare(f"--runs=[{tmp_path}/good,{tmp_path}/bad]") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "results.json" in line


def hostile() -> Document:
    """Results whose every free text is a script, and whose policy has a path and a huge number."""
    document = good()
    run = document["run"]
    document["env"] = document["task"] = document["player"] = SCRIPT
    run["policy"] = {"type": SCRIPT, "checkpoint_id": SCRIPT, SCRIPT: {SCRIPT: [SCRIPT]}}
    run["policy"] |= {"path": "../../etc/passwd", "size": 10**400, "nothing": float("nan")}
    run["versions"] = {SCRIPT: SCRIPT}
    run["command"] = [SCRIPT, "\x1b[2J"]
    run["started"] = run["error"] = SCRIPT
    run["episodes"][0] |= {"path": "../../../etc/passwd", "video": "javascript:alert(1)"}
    document["episodes"][1]["initial_state"] = SCRIPT
    return document


def test_text_is_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(hostile()))
    runs = f"--runs=[{tmp_path}/a,{tmp_path}/b]"
    assert compare(runs, f"--output_dir={tmp_path}/out") == 0
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<script") == 1, "the page's own"
    assert "<img" not in page
    assert "javascript:" not in page
    assert page.count("&lt;script&gt;") > 10
    assert re.search(r"script-src (&#39;|')sha256-[\w+/=]{44}(&#39;|');", page)
    assert "\x1b" not in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.html",
        "comparison.json",
    ]


@pytest.mark.usefixtures("browser")
class TestInChromium:
    pytestmark = needs_chromium

    def test_no_script_runs(self, browser: Any, tmp_path: Path) -> None:
        sides = [Entrant(label, READER.validate(hostile(), Results, label)) for label in "ab"]
        path = tmp_path / "comparison.html"
        path.write_text(render_page(sides, all_contests(sides), ORIGIN), encoding="utf-8")
        browser.get(path.as_uri())
        assert browser.title.startswith("Comparison")
        assert browser.execute_script("return document.scripts.length") == 1, "the page's own"
        assert browser.execute_script("return document.images.length") == 0

    def test_not_even_one_that_got_into_the_page(self, browser: Any, tmp_path: Path) -> None:
        sides = [Entrant(label, READER.validate(good(), Results, label)) for label in "ab"]
        page = render_page(sides, all_contests(sides), ORIGIN)
        page = str(page).replace("<main>", f"<main>{SCRIPT}")
        policy = re.compile(r"<meta http-equiv=[^>]*>")
        path = tmp_path / "comparison.html"
        for content, title in ((page, "Comparison"), (policy.sub("", page), "ran")):
            path.write_text(content, encoding="utf-8")
            browser.get(path.as_uri())
            assert browser.title.startswith(title)


def test_mutations_are_read_or_refused() -> None:
    """Whatever is read can also be compared, drawn and written."""
    other = Entrant("good", READER.validate(good(), Results, "good"))
    read, refusals = 0, []
    document = good()
    document["run"]["episodes"] = document["episodes"][2:] = []
    document["summary"] |= {"successes": 1, "finished": 2, "ended_by": {"success": 1, "timeout": 1}}
    for index, content in enumerate(mutations(document, 10_000, seed=3)):
        try:
            entrant = Entrant("mutated", READER.parse_json(content, Results, "results.json"))
            require_comparable([other, entrant])
        except (DatasetError, ContractError) as error:
            refusals.append(str(error))
            continue
        read += 1
        if index % 20 == 0:
            sides = [other, entrant]
            contests = all_contests(sides)
            assert render_page(sides, contests, ORIGIN).count("<script") == 1, "the page's own"
            json.loads(dumps(sides, contests, ORIGIN))
            summary_lines(sides, contests)
    assert 300 < read < 9000
    assert max(map(len, refusals)) < 1000
