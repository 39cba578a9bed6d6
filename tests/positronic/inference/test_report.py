import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from positronic.inference.report import choose_shown, render_report
from positronic.inference.results import EpisodeResult, flatten
from positronic.inference.run import summary_lines
from positronic.policy import Jump
from tests.positronic.inference.sample import sample_replay, sample_run

VOID = {"meta", "link", "br", "img", "input", "line", "path"}


class Balance(HTMLParser):
    """Checks that every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def test_failures_are_shown_first_and_all_kinds_of_them() -> None:
    run = sample_run(12, failures=(4, 9))
    assert choose_shown(run.episodes, 5) == [4, 9, 0, 1, 2]
    assert choose_shown(run.episodes, 1) == [4]
    assert choose_shown(run.episodes, 0) == []
    # A success to compare them with, however many failures there are.
    assert choose_shown(run.episodes, 2) == [4, 0]
    assert choose_shown(sample_run(3, failures=(0, 1, 2)).episodes, 2) == [0, 1]
    cut_short = sample_run(6, failures=(), unfinished="server_gone")
    assert choose_shown(cut_short.episodes, 2) == [5, 0]


def test_page_is_well_formed_and_needs_nothing_else() -> None:
    run = sample_run(12)
    page = render_report(run, {4: sample_replay(20), 0: sample_replay(20)})
    parser = Balance()
    parser.feed(page)
    assert parser.stack == []
    assert len(parser.ids) == len(set(parser.ids))
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert not re.search(r"url\(|@import|https?://", page)
    for target in re.findall(r'href="#([^"]+)"', page):
        assert target in parser.ids


def test_page_tells_rate_interval_origin_and_every_episode() -> None:
    run = sample_run(50, failures=(4, 17, 31))
    page = render_report(run, {})
    for text in ("94.0", "47 of 50 rollouts succeeded", "83.8 % and 97.9 %", "act", "003000"):
        assert text in page
    assert "--driver.num_iterations=50" in page
    assert "chunk_size" in page
    assert "mujoco" in page
    assert page.count('<tr id="row-') == 50
    assert page.count('<span class="pill timeout">') == 3


def test_causes_are_counted_and_lead_to_the_first_of_their_kind() -> None:
    run = sample_run(12, failures=(4, 6, 9))
    assert run.named_failures == {}
    assert not any(line.startswith("failures") for line in summary_lines(run))
    assert "3 not solved in time" not in render_report(run, {})
    for i in (6, 9):
        run.episodes[i] = replace(run.episodes[i], failure_cause="never_grasped")
    page = render_report(run, {9: sample_replay(5, video=False)})
    links = dict(
        re.findall(r'href="#([^"]+)" title="Go to[^>]*>(?:<i[^>]*></i>)?([^<]+)</a>', page)
    )
    # Of all failures too, the first one that is shown is the tenth rollout.
    assert "</i>3 failed</a>" in page
    assert links == {
        "row-0": "9 succeeded",
        "episode-9": "2 never grasped",
        "row-4": "1 not solved in time",
    }
    assert page.count('<span class="pill timeout">never grasped</span>') == 3
    assert "failures: 2 never grasped, 1 not solved in time" in summary_lines(run)
    document = run.to_json()
    assert document["summary"]["failure_causes"] == {"never_grasped": 2}
    causes = [episode["failure_cause"] for episode in document["episodes"]]
    assert causes == [None] * 6 + ["never_grasped", None, None, "never_grasped", None, None]


def test_figures_are_explained_and_a_contract_is_json() -> None:
    run = sample_run(3)
    run.episodes[0] = replace(run.episodes[0], jumps=(Jump(0.02, 0.1, 0.0),), starved=2)
    run.policy = {**run.policy, "jpeg": True, "sizes": [{"name": None}]}
    page = render_report(run, {})
    tiles = re.findall(r'<div title="([^"]+)"><dt>([^<]+)</dt><dd>([^<]+)<small>([^<]+)', page)
    assert [name for _, name, _, _ in tiles] == [
        *("Mean duration", "Time limit", "Inference time"),
        *("Starved steps", "Jump between chunks", "Run took"),
    ]
    assert ("20.0 mm", "mean of 1") in [tile[2:] for tile in tiles]
    assert "<dt>jpeg</dt><dd>true</dd>" in page
    assert "<dd>[{&#34;name&#34;: null}]</dd>" in page
    shown = re.search(r"<details><summary>[^<]+</summary><pre><code>(.*?)</code>", page, re.DOTALL)
    assert shown is not None
    assert json.loads(html.unescape(shown[1])) == run.contract
    assert shown[1].count("\n") == 6


def test_interval_is_drawn_to_scale() -> None:
    page = render_report(sample_run(50, failures=(4, 17, 31)), {})
    band = re.search(r'class="band" style="left:([\d.]+)%;width:([\d.]+)%"', page)
    assert band is not None
    assert float(band[1]) == pytest.approx(83.8, abs=0.06)
    assert float(band[1]) + float(band[2]) == pytest.approx(97.9, abs=0.06)
    assert 'class="rate" style="left:94.00%"' in page


def test_an_early_end_is_said_and_does_not_count() -> None:
    run = sample_run(9, failures=(4,), unfinished="server_gone")
    page = render_report(run, {8: sample_replay(10, video=False)})
    assert "7 of 8 rollouts succeeded" in page
    assert "stopped early" in page
    assert "went away" in page
    assert "1 not finished" in page


def test_nothing_finished_is_a_page_too() -> None:
    run = sample_run(1, failures=(), unfinished="interrupted")
    page = render_report(run, {})
    assert "No rollout was finished" in page


def test_text_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    run = sample_run(3)
    run.task = evil
    run.policy = {"type": evil, "contract": {"codec": evil}}
    run.command = (evil,)
    run.error = evil
    run.policy["list"] = [{evil: evil}]
    run.episodes[0] = replace(run.episodes[0], ended_by="terminated", failure_cause=evil)
    run.episodes[1] = replace(run.episodes[1], ended_by="error", error=evil)
    page = render_report(run, {1: sample_replay(5, video=False)})
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)") >= 11


def test_results_put_what_may_differ_in_one_place() -> None:
    first, second = sample_run(5), sample_run(5)
    second.started, second.wall_s = "2027-01-01T00:00:00+00:00", 1.0
    second.command, second.versions = ("other",), {}
    second.policy = {**second.policy, "host": "elsewhere"}
    second.episodes = [
        replace(e, inference_ms=(9.0,), wall_s=2.0, path=None) for e in second.episodes
    ]
    one, two = (json.loads(run.dumps()) for run in (first, second))
    assert one["run"] != two["run"]
    del one["run"], two["run"]
    assert one == two
    assert one["summary"]["success_rate"] == 0.8


def test_unknown_endings_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        EpisodeResult(0, "bored", 1, 0.0, "", "")


def test_flatten_drops_none() -> None:
    assert flatten({"a": {"b": 1, "c": None}, "d": [1]}) == {"a.b": 1, "d": [1]}
