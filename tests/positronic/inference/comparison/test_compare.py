import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from positronic.dataset import LocalDataset
from positronic.errors import ContractError
from positronic.inference.comparison.contest import all_contests, dumps, regressions, summary_lines
from positronic.inference.comparison.entrants import Entrant, require_comparable
from positronic.inference.comparison.page import render_page
from tests.positronic.inference.commands import (
    EXPERT,
    HOLD,
    PLANNER,
    POLICIES,
    expert_server,
    remote,
    run,
)
from tests.positronic.inference.sample import sample_run
from tests.positronic.inference.test_report import Balance
from tests.positronic.offboard.running import serving
from tests.positronic.offboard.small_models import Source

ORIGIN = {"started": "2026-11-20T12:00:00+00:00", "command": ("positronic-inference", "compare")}
SHORT = ["--cameras=none", "--report_videos=0"]


def entrant(label: str, failures: tuple[int, ...] = (), count: int = 12, **fields: Any) -> Entrant:
    run = sample_run(count, failures=failures, **fields)
    return Entrant.of(label, run.to_json(), f"{label}/report.html")


def compare(*words: str) -> int:
    return run(*words, command="compare")


def test_only_the_seeds_that_differ_decide() -> None:
    first, second = entrant("5000", (1, 2, 3, 4, 5, 6, 7)), entrant("10000", (7,))
    (contest,) = all_contests([first, second])
    assert contest.pairs.count == 12
    assert (contest.pairs.first_only, contest.pairs.second_only) == (0, 6)
    assert contest.p_value == pytest.approx(2 * 0.5**6)
    assert contest.verdict == "10000 is better"
    assert regressions([first, second], [contest]) == []
    (back,) = all_contests([second, first])
    assert back.verdict == "5000 is worse"
    assert regressions([second, first], [back]) == [back]
    solved = [e for i, e in enumerate(first.results.episodes) if i not in range(1, 8)]
    assert contest.joint_steps is not None
    assert contest.joint_steps[0] == pytest.approx(sum(e.steps for e in solved) / 5)


def test_several_pairs_are_corrected_for_their_number() -> None:
    sides = [entrant("a", (1, 2, 3, 4, 5, 6)), entrant("b"), entrant("c")]
    contests = all_contests(sides)
    assert [(c.first.label, c.second.label) for c in contests] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert contests[0].pairs.p_value == pytest.approx(0.03125)
    assert contests[0].p_value == pytest.approx(3 * 0.03125)
    assert contests[0].verdict == "no significant difference"
    lines = summary_lines(sides, contests)
    assert "exact McNemar p = 0.0938 (Holm, 3 pairs): no significant difference" in lines[4]
    assert lines[5] == (
        "  too few: at least 7 seeds must differ, 6 did; at these rates, play about 14 seeds"
    )
    assert max(map(len, lines)) <= 100


def test_what_was_not_finished_is_left_out_and_said() -> None:
    first = entrant("a", (), 8)
    second = entrant("b", (2,), 8, unfinished="server_gone")
    (contest,) = all_contests([first, second])
    assert contest.pairs.count == 7
    assert contest.left_out == 1
    page = render_page([first, second], [contest], ORIGIN)
    assert "<b>b stopped early</b>" in page
    assert "Seeds left out, not finished by both" in page


def test_the_page_is_well_formed_and_tells_everything() -> None:
    sides = [entrant("a", (1, 2)), entrant("<b>", (2, 5)), entrant("c", (0,))]
    page = render_page(sides, all_contests(sides), ORIGIN)
    parser = Balance()
    parser.feed(page)
    assert parser.stack == []
    assert len(parser.ids) == len(set(parser.ids))
    for target in re.findall(r'href="#([^"]+)"', page):
        assert target in parser.ids
    assert not re.search(r"url\(|@import|https?://", page)
    assert "<b>>" not in page
    assert "&lt;b&gt; against a" in page
    assert page.count('class="card contest"') == 3
    rows = re.findall(r'<tr id="seed-(\d+)"( class="differs")?>', page)
    assert len(rows) == 12
    # Those that differ come first.
    assert [bool(differs) for _, differs in rows] == [True] * 4 + [False] * 8
    assert "exact binomial form" in page


def test_the_document_holds_every_figure() -> None:
    sides = [entrant("a", (1,)), entrant("b", (2, 5))]
    document = json.loads(dumps(sides, all_contests(sides), ORIGIN))
    (pair,) = document["contests"]
    assert pair["first_only"] == 2
    assert pair["second_only"] == 1
    assert pair["both_succeeded"] + pair["both_failed"] == 9
    assert pair["difference"] == pytest.approx(-1 / 12)
    assert pair["newcombe_95"][0] < -1 / 12 < pair["newcombe_95"][1]
    assert [entry["summary"]["successes"] for entry in document["entrants"]] == [11, 10]
    assert document["seeds"][1] == {
        "seed": 1001,
        "ended_by": ["timeout", "success"],
        "steps": [300, document["seeds"][1]["steps"][1]],
    }


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("env", "positronic/PickPlace-v0", "the environment is positronic/StackCubes-v0 and"),
        ("control_fps", 30.0, "the control rate is 15.0 and 30.0"),
        ("simulation_time", 5.0, "the time limit is 20.0 and 5.0"),
        ("seed", 0, "they have seeds 1000 to 1011 and seeds 0 to 11"),
    ],
)
def test_other_conditions_are_refused(field: str, value: Any, message: str) -> None:
    document = {**sample_run(12, failures=()).to_json(), field: value}
    if field == "seed":
        document["episodes"] = [e | {"seed": e["seed"] - 1000} for e in document["episodes"]]
    with pytest.raises(ContractError, match=message):
        require_comparable([entrant("a"), Entrant.of("b", document)])


def test_other_initial_states_are_refused() -> None:
    document = sample_run(12, failures=()).to_json()
    document["episodes"][3]["initial_state"] = "different"
    with pytest.raises(ContractError, match="initial states of seed 1003 differ"):
        require_comparable([entrant("a"), Entrant.of("b", document)])


def test_two_policies_are_played_on_the_same_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    against = f"--against={POLICIES}.hold"
    words = ["--driver.num_iterations=2", "--driver.simulation_time=4.6", *SHORT]
    assert compare(PLANNER, against, *words, f"--output_dir={tmp_path}") == 0
    out = capsys.readouterr().out
    assert "first  2/2 = 100.0 %" in out
    assert "other  0/2 = 0.0 %" in out
    assert "first: planner, 2 rollouts\n1/2  seed 100000  success" in out
    won = "  won 0, lost 2 of 2 seeds; exact McNemar p = 0.5: no significant difference\n"
    advice = "  too few: at least 6 seeds must differ, 2 did; at these rates, play about 6 seeds\n"
    assert won + advice in out
    assert max(map(len, out.splitlines()[:-1])) <= 100
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["contests"][0]["first_only"] == 2
    for name, ended_by in (("first", "success"), ("other", "timeout")):
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert [e["ended_by"] for e in results["episodes"]] == [ended_by] * 2
        assert len(LocalDataset(tmp_path / name)) == 2
        assert f'href="{name}/report.html"' in (tmp_path / "comparison.html").read_text()
    runs = f"--runs=[{tmp_path}/first,{tmp_path}/other]"
    assert compare(runs) == 0
    assert capsys.readouterr().out.splitlines() == out.splitlines()[-6:-1]
    assert compare(runs, f"--output_dir={tmp_path}") == 1
    assert "already has a comparison" in capsys.readouterr().err


def test_finished_runs_decide_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, failures in (("good", (1,)), ("bad", (1, 2, 3, 4, 5, 6, 7, 8))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(sample_run(12, failures=failures).dumps())
        (tmp_path / name / "report.html").touch()
    good, bad = tmp_path / "good", tmp_path / "bad"
    assert compare(f"--runs=[{good},{bad}]") == 0
    assert compare(f"--runs=[{good},{bad}]", "--fail_on_regression=True") == 1
    assert compare(f"--runs=[{bad},{good}]", "--fail_on_regression") == 0
    assert "bad against good: -58.3 points" in capsys.readouterr().out
    assert compare(f"--runs=[{bad},{good}]", f"--output_dir={tmp_path}/new/both") == 0
    page = (tmp_path / "new" / "both" / "comparison.html").read_text()
    assert 'href="../../good/report.html#row-3"' in page


def test_runs_in_s3_are_compared_there(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, failures in (("a", (1,)), ("b", (2, 3))):
        text = sample_run(12, failures=failures).dumps()
        storage.write_bytes(f"s3://bucket/{name}/results.json", text.encode())
    words = ["--runs=[s3://bucket/a,s3://bucket/b]", "--output_dir=s3://bucket/both"]
    assert compare(*words) == 0
    assert "b against a: -8.3 points" in capsys.readouterr().out
    document = json.loads(storage.read_bytes("s3://bucket/both/comparison.json"))
    assert document["contests"][0]["first_only"] == 2
    assert compare(*words) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to compare"),
        ([HOLD], "nothing to compare"),
        (["--checkpoints=[1,2]"], "--policy with checkpoints"),
        (["--policy=.remote", "--checkpoints=[a/b,c]"], "is not a checkpoint name"),
        ([HOLD, "--runs=[a,b]", f"--against={POLICIES}.hold"], "not both"),
        ([HOLD, "--checkpoints=[1,2]"], "--policy with checkpoints"),
        ([HOLD, "--checkpoints=[1,1]"], "has a duplicate"),
        ([HOLD, "--against.port=1"], "--against.port: choose --against=.remote first"),
    ],
)
def test_bad_flags_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_films_and_rollouts_of_each_run_are_linked() -> None:
    sides = []
    for label in ("a", "b c"):
        document = entrant(label, ()).results.model_dump()
        document["run"]["episodes"] = [{"video": f"/x/{label}/videos/0-success.mp4"}]
        sides.append(Entrant.of(label, document, f"{label}/report.html"))
    page = render_page(sides, all_contests(sides), ORIGIN)
    assert page.count("<video") == 2
    assert 'preload="none"' in page
    assert "With --video=True" not in page
    assert "With --video=True" in render_page([entrant("a"), entrant("b")], [], ORIGIN)
    for label in ("a", "b%20c"):
        assert f'src="{label}/videos/0-success.mp4"' in page
        assert f'href="{label}/report.html#row-1"' in page
    assert "media-src data: 'self' file:;" in html.unescape(page)
    elsewhere = Entrant.of("a", {**document, "run": {**document["run"]}})
    assert elsewhere.films == {}


def test_runs_that_are_none_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.json").write_text(sample_run(3).dumps())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "results.json").write_text('{"format": 1}')
    assert compare(f"--runs=[{tmp_path}/a,{tmp_path}/b]") == 1
    assert compare(f"--runs=[{tmp_path}/a,{tmp_path}/none]") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "has format 1, expected 2" in first
    assert "has no results.json" in second


@pytest.mark.parametrize(
    ("failures", "advice"),
    [
        (((1, 2, 3, 4, 5, 6), ()), None),
        (
            ((1, 2, 3), ()),
            "at least 6 seeds must differ, 3 did; at these rates, play about 24 seeds",
        ),
        (((1, 2), (2, 3)), "at least 6 seeds must differ, 2 did"),
        (((), ()), "at least 6 seeds must differ, none did"),
        (((1, 2, 3, 4, 5, 6), (7,)), "at these rates, about 20 seeds would decide"),
        (((1, 2, 3), (4, 5, 6)), "at these rates, 20000 seeds would not decide"),
    ],
)
def test_how_many_seeds_a_decision_needs(
    failures: tuple[tuple[int, ...], tuple[int, ...]], advice: str | None
) -> None:
    sides = [entrant("a", failures[0]), entrant("b", failures[1])]
    (contest,) = contests = all_contests(sides)
    said = [summary_lines(sides, contests)[-1], render_page(sides, contests, ORIGIN)]
    if advice is None:
        assert contest.significant
        assert contest.advice is None
        assert "at these rates" not in "".join(said)
    else:
        assert contest.advice is not None
        assert contest.advice.removeprefix("too few: ") == advice
        assert all(contest.advice in text for text in said)
    (document,) = json.loads(dumps(sides, contests, ORIGIN))["contests"]
    assert document["least_differing_seeds"] == 6
    assert document["seeds_to_decide"] == contest.seeds_to_decide


def test_a_server_that_dies_leaves_the_results_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with expert_server(3) as port:
        words = ["--against=.remote", f"--against.port={port}", *SHORT]
        where = f"--output_dir={tmp_path}"
        assert compare(EXPERT, *words, "--driver.simulation_time=0.4", where) == 1
    assert "went away" in capsys.readouterr().err
    assert (tmp_path / "first" / "results.json").exists()
    played = json.loads((tmp_path / "first" / "results.json").read_text())["num_iterations"]
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["contests"][0]["left_out"] == played


def test_a_policy_that_is_not_there_costs_no_rollouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--against=.remote", "--against.port=9", "--against.connect_timeout=0.1", *SHORT]
    assert compare(EXPERT, *words, f"--output_dir={tmp_path}/new") == 1
    captured = capsys.readouterr()
    assert "no inference server at" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "new").exists()


def test_checkpoints_that_are_not_there_are_named_before_any_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source(["010000", "020000"])
    with serving(source) as port:
        words = [*remote(str(port)), "--checkpoints=[20000,201]", "--cameras=none"]
        code = compare(*words, "--driver.simulation_time=0.2", f"--output_dir={tmp_path}/new")
        loaded = [policy.meta["checkpoint_id"] for policy in source.living]
    assert code == 1
    captured = capsys.readouterr()
    assert f"127.0.0.1:{port} has no checkpoint 201; it has 010000, 020000\n" in captured.err
    assert captured.out == ""
    assert loaded == ["010000"]
