import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from positronic.dataset import DatasetWriter, LocalDataset
from positronic.errors import ServerGone, SessionError
from positronic.inference.evaluation import command_line
from positronic.inference.results import EpisodeResult
from positronic.inference.run import Played, play_all
from positronic.inference.setting import Rollout
from tests.positronic.inference.sample import sample_run


def played(writer: DatasetWriter, index: int, cause: Exception | None = None) -> Played:
    """A rollout that is over, with a recording that is staged."""
    episode = writer.new_episode()
    episode.append("grip", 1.0, 0)
    episode.set_static("index", index)
    ended_by = "server_gone" if cause else "success"
    result = EpisodeResult(index, ended_by, 1, 1.0, "", "", path=episode.stage())
    return Played(Rollout(index, index), result, cause, {"type": "sample"})


def test_rollouts_that_end_in_any_order_are_kept_in_order(tmp_path: Path) -> None:
    writer, run = DatasetWriter(tmp_path), sample_run(0)
    run.policy, order = {}, (2, 0, 3, 1)
    visible: list[int] = []
    lines: list[str] = []

    def rollouts() -> Iterator[Played]:
        for index in order:
            yield played(writer, index)
            visible.append(len(list(tmp_path.glob("[0-9]*/*"))))

    assert play_all(run, rollouts(), writer, lines.append) is None
    assert visible == [0, 1, 1, 4]  # each as soon as all before it are there
    assert [line.split("/")[0].strip() for line in lines] == ["3", "1", "4", "2"]
    assert [episode["index"] for episode in LocalDataset(tmp_path)] == [0, 1, 2, 3]
    assert [result.seed for result in run.episodes] == [0, 1, 2, 3]
    assert run.policy == {"type": "sample"}
    assert [str(result.path) for result in run.episodes] == [
        f"{tmp_path}/000000000000/{i:012d}" for i in range(4)
    ]


def test_a_gap_keeps_nothing_hidden_in_the_end(tmp_path: Path) -> None:
    writer, run = DatasetWriter(tmp_path), sample_run(0)
    gone = ServerGone("the server went away")

    def rollouts() -> Iterator[Played]:
        yield played(writer, 4)
        yield played(writer, 2, gone)
        yield played(writer, 3)
        raise SessionError("no server any more")

    assert play_all(run, rollouts(), writer, lambda line: None) is gone
    assert [episode["index"] for episode in LocalDataset(tmp_path)] == [2, 3, 4]
    assert [result.seed for result in run.episodes] == [2, 3, 4]
    assert run.error == "the server went away"
    assert not list(tmp_path.glob(".*"))


def test_a_bug_costs_nothing_that_was_recorded(tmp_path: Path) -> None:
    writer, run, bug = DatasetWriter(tmp_path), sample_run(0), ZeroDivisionError("a bug")

    def rollouts() -> Iterator[Played]:
        yield played(writer, 1)
        raise bug

    assert play_all(run, rollouts(), writer, lambda line: None) is bug
    assert [episode["index"] for episode in LocalDataset(tmp_path)] == [1]
    assert run.error == "a bug"


def test_trouble_before_the_first_rollout_is_raised() -> None:
    def refuse(index: int) -> Played:
        raise SessionError("no server")

    with pytest.raises(SessionError, match="no server"):
        play_all(sample_run(0), map(refuse, range(3)))


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("/venv/bin/positronic-inference", "positronic-inference"),
        ("/src/positronic/inference/__main__.py", "python -m positronic.inference"),
    ],
)
def test_the_command_can_be_typed_again(
    monkeypatch: pytest.MonkeyPatch, program: str, named: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "sim", "--inference_delay=[0, 0.1]"])
    spec = find_spec("positronic.inference.__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec, raising=False)
    assert command_line() == (named, "sim", "'--inference_delay=[0, 0.1]'")
