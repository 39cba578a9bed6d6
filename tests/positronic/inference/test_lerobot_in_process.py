"""Rollouts of real, small LeRobot policies without a server."""

import json
from pathlib import Path

import pytest

from positronic.dataset import LocalDataset
from positronic.simulator import gl
from positronic.vendors.lerobot import codecs
from tests.positronic.inference.commands import run
from tests.positronic.vendors.lerobot.small_policy import STEPS, make_run

pytestmark = pytest.mark.skipif(
    not any(gl.is_available(name) for name in ("egl", "osmesa")),
    reason="nothing to render with",
)
POLICY = "--policy=.act_absolute"
SHORT = ["--driver.simulation_time=1.2", "--cameras=none", "--policy.device=cpu"]


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("act"), codecs.eepose_state())


def test_players_delays_and_films_work_on_it(chunks: Path, tmp_path: Path) -> None:
    where = [f"--policy.checkpoints_dir={chunks}", f"--output_dir={tmp_path}"]
    words = ["--player=.asynchronous", "--inference_delay=[0,0.1]", "--video=True"]
    small = ["--driver.simulation_time=1.2", "--cameras=image.wrist", "--policy.device=cpu"]
    assert run(POLICY, *where, *words, *small) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["run"]["policy"]["checkpoint_id"] == "020000"
    assert [episode["starved_steps"] for episode in results["episodes"]] == [0, 0]
    first, later = (episode["inference_steps"] for episode in results["episodes"])
    assert len(first) >= 18 // STEPS
    # Asked for earlier, since the answer takes two steps.
    assert len(later) > len(first)
    assert len(list((tmp_path / "videos").iterdir())) == 2


def test_checkpoints_of_it_are_compared(
    chunks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [f"--policy.checkpoints_dir={chunks}", f"--output_dir={tmp_path}"]
    words = ["--checkpoints=[10000,20000]", "--report_videos=0"]
    assert run(POLICY, *where, *words, *SHORT, command="compare") == 0
    out = capsys.readouterr().out
    assert "20000 against 10000: +0.0 points" in out
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert [entry["description"] for entry in document["entrants"]] == [
        "act, checkpoint 010000",
        "act, checkpoint 020000",
    ]
    assert len(LocalDataset(tmp_path / "10000")) == 1


def test_it_stays_in_one_process(chunks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(POLICY, f"--policy.checkpoints_dir={chunks}", "--num_envs=2", *SHORT) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert "--num_envs above 1 needs a policy on a server" in line


def test_a_policy_that_looks_back_is_asked_at_every_step(tmp_path: Path) -> None:
    made = make_run(
        tmp_path / "run",
        codecs.eepose_state(),
        (10000,),
        temporal_ensemble_coeff=0.01,
        n_action_steps=1,
    )
    where = [f"--policy.checkpoints_dir={made}", f"--output_dir={tmp_path}/out"]
    assert run(POLICY, *where, *SHORT) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["run"]["policy"]["every_step"] is True
    (episode,) = results["episodes"]
    assert episode["inference_steps"] == list(range(18))


def test_a_policy_that_draws_noise_draws_the_same_for_the_same_seed(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", codecs.eepose_state(), (10000,), policy="diffusion")

    def final_states(name: str, seed: int, count: int) -> dict[int, str]:
        where = [f"--policy.checkpoints_dir={made}", f"--output_dir={tmp_path / name}"]
        words = [f"--seed={seed}", f"--driver.num_iterations={count}"]
        assert run(POLICY, *where, *words, *SHORT) == 0
        results = json.loads((tmp_path / name / "results.json").read_text())
        return {episode["seed"]: episode["final_state"] for episode in results["episodes"]}

    both = final_states("both", 5, 2)
    # Alone it is the first session of its policy, and not the second.
    assert final_states("alone", 6, 1) == {6: both[6]}
