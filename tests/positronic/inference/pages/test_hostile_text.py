"""Text of others in pages of every kind, opened in a browser: it stays text and makes no markup."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.inference.comparison.contest import all_contests
from positronic.inference.comparison.entrants import Entrant
from positronic.inference.comparison.page import render_page as render_comparison
from positronic.inference.open_loop.command import mean_errors
from positronic.inference.open_loop.page import render_page as render_open_loop
from positronic.inference.open_loop.tracks import Comparison, Track
from positronic.inference.report import render_report
from positronic.inference.results import RunResult
from tests.chromium import needs_chromium
from tests.positronic.inference.sample import sample_replay, sample_run

pytestmark = needs_chromium

TEXTS = {
    "script": "<script>window.ran = 1</script>",
    "script after the end of another": "</script><script>window.ran = 1</script>",
    "image after the end of a title": "</title></style><img src=x onerror='window.ran = 1'>",
    "end of an attribute": '"><svg onload="window.ran = 1">',
    "attribute": "\" autofocus tabindex=0 onfocus='window.ran = 1' ' onfocus=\"window.ran = 1",
    "address": "javascript:window.ran=1//",
    "comment": "--><!--",
    "template": "{{ 6 * 7 }}{% include 'report.css' %}",
    "markup that was escaped already": "&lt;b&gt;&amp;&quot;",
}


def hostile_run(text: str) -> RunResult:
    """Whatever of a run is free text is ``text``; seeds too, though they ought to be numbers."""
    run = sample_run(3, failures=(1,))
    run.env = run.task = run.started = run.player = run.error = text
    run.command = (text, text)
    run.cameras = (text,)
    run.versions = {text: text}
    run.policy = {
        **{"type": text, "checkpoint_id": text, text: [text]},
        "contract": {text: {text: text}, "codec": text},
    }
    films = Path("/out") / text.replace("/", "\\")
    run.published = {films.parent: "/out"}
    seed: Any = text
    run.episodes = [
        replace(e, seed=seed, path=films, video=films / films.name, error=text)
        for e in run.episodes
    ]
    return run


def report(text: str) -> str:
    replay = replace(
        sample_replay(5), object_names=(text, text + "2"), cameras=(text, f"image.{text}")
    )
    return render_report(hostile_run(text), {1: replay})


def report_over_delays(text: str) -> str:
    run = hostile_run(text)
    run.delays = (0.0, 0.4)
    run.episodes = [replace(e, delay=d) for d in run.delays for e in run.episodes]
    return render_report(run, {})


def comparison(text: str) -> str:
    """The page of two runs that differ, whose results are what their files may hold."""
    sides = []
    for label, failures in ((text, (1, 2, 3, 4, 5, 6)), (f"{text}2", ())):
        document = sample_run(12, failures=failures).to_json()
        document |= {"env": text, "task": text, "player": text}
        document["run"] |= {"started": text, "command": [text], "versions": {text: text}}
        document["run"] |= {"error": text, "policy": {"type": text, text: {text: [text]}}}
        sides.append(Entrant.of(label, document, f"{label}/report.html"))
    return render_comparison(sides, all_contests(sides), {"started": text, "command": (text,)})


def open_loop(text: str) -> str:
    track, hold = (Track(np.tile([x, 0, 0.3, 1, 0, 0, 0], (3, 1)), np.ones(3)) for x in (0.4, 0.5))
    times = np.arange(3) / 15
    results = [Comparison(0, text, times, track, track, track, hold, [0.0], [0.01])]
    return render_open_loop(
        results,
        mean_errors(results),
        task=text,
        subtitle=[text, text],
        origin={text: text, "command": text},
        note=text,
        error=text,
    )


PAGES: dict[str, Callable[[str], str]] = {
    "report": report,
    "report over delays": report_over_delays,
    "comparison": comparison,
    "open loop": open_loop,
}

STRUCTURE = """
    return [...document.querySelectorAll("*")].map((e) => [e.tagName, ...e.getAttributeNames()]);
"""


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Opens a page from the disk, without the policy that would forbid a script to run."""
    path = tmp_path_factory.mktemp("pages") / "page.html"

    def open_page(page: str) -> Any:
        bare, found = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        assert found == 1
        path.write_text(bare, encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    return open_page


@pytest.fixture(scope="module")
def expected(opened: Callable[[str], Any]) -> Callable[[str], list[list[str]]]:
    """Elements and attributes of the page of each kind when its texts are one word."""
    found: dict[str, list[list[str]]] = {}

    def structure(kind: str) -> list[list[str]]:
        if kind not in found:
            found[kind] = opened(PAGES[kind]("word")).execute_script(STRUCTURE)
        return found[kind]

    return structure


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("kind", PAGES)
def test_text_of_others_is_shown_and_is_no_markup(
    kind: str, text: str, opened: Callable[[str], Any], expected: Callable[[str], list[list[str]]]
) -> None:
    wanted = expected(kind)
    page = opened(PAGES[kind](text))
    assert page.execute_script(STRUCTURE) == wanted
    assert page.execute_script("return window.ran") is None
    shown = page.execute_script("return [document.title, document.body.textContent]")
    assert all(text in part for part in shown)
    assert shown[1].count(text) > 5


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("kind", PAGES)
def test_links_lead_into_the_page_or_to_files_beside_it(
    kind: str, text: str, opened: Callable[[str], Any]
) -> None:
    page = opened(PAGES[kind](text))
    links = page.execute_script(
        """
        return [...document.querySelectorAll("a[href]")].map((a) => {
          const { protocol, pathname, hash } = new URL(a.href);
          const beside = !a.getAttribute("href").startsWith("#");
          return [protocol, beside && decodeURIComponent(pathname), hash];
        });
        """
    )
    assert {protocol for protocol, _, _ in links} <= {"file:"}
    for _, path, place in links:
        assert re.fullmatch(r"|#row-\d+", place) if path else place.startswith("#")
    if kind != "open loop":
        assert any(path and path.split("/")[-1] for _, path, _ in links)
