"""Mishaps: something else is executed than recorded, and the expert finds its way back."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from positronic import simulator
from positronic.dataset import DatasetWriter, LocalDataset
from positronic.simulator.demonstrations import KINDS, SIM_STATE, Mishaps, Recorder, Scenario
from positronic.simulator.expert import GOALS, make_expert


@pytest.mark.parametrize("task", GOALS)
def test_the_expert_recovers_from_every_kind(task: str) -> None:
    env = simulator.make(task, max_episode_steps=200, cameras=None)
    expert = make_expert(env)
    succeeded: Counter[str] = Counter()
    for seed in range(24):
        observation, info = env.reset(seed=seed)
        mishaps, over = Mishaps(1.0, seed), False
        while not over:
            action = expert.act(observation)
            observation, _, done, late, info = env.step(mishaps.execute(action, observation))
            over = done or late
        assert mishaps.begun is not None, f"nothing went wrong in attempt {seed}"
        succeeded[mishaps.begun.kind] += bool(info["is_success"])
    env.close()
    assert set(succeeded) == set(KINDS)
    assert sum(succeeded.values()) >= 21, succeeded
    assert all(succeeded.values()), succeeded


def test_the_same_seed_has_the_same_mishap_and_the_share_is_kept() -> None:
    def kinds(share: float) -> list[str | None]:
        planned = [Mishaps(share, seed)._planned for seed in range(400)]
        return [mishap.kind if mishap else None for mishap in planned]

    assert kinds(0.4) == kinds(0.4)
    assert kinds(0.0) == [None] * 400
    share = sum(kind is not None for kind in kinds(0.4)) / 400
    assert share == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_recorded_is_the_experts_own_command(tmp_path: Path, share: float) -> None:
    writer = DatasetWriter(tmp_path)
    options = {"cameras": None}
    recorder = Recorder(Scenario("positronic/StackCubes-v0", options, mishaps=share), writer)
    for seed in range(3):
        attempt = recorder.attempt(seed)
        if attempt.staged is not None:
            writer.publish(attempt.staged)
    recorder.close()

    env = simulator.make("stack_cubes", cameras=None)
    expert = make_expert(env)
    strayed = 0
    for episode in LocalDataset(tmp_path):
        assert (episode.static.get("recording.mishap") in KINDS) == (share > 0)
        states = episode.signals[SIM_STATE].values()
        poses = episode.signals["robot_commands.pose"].values()
        grips = episode.signals["target_grip"].values()
        inner = env.unwrapped
        env.reset(seed=0)
        for now, after, pose, grip in zip(states, states[1:], poses, grips, strict=False):
            command = expert.act(inner.set_sim_state(now))  # type: ignore[attr-defined]
            np.testing.assert_allclose(command, [*pose, grip], atol=1e-9)
            inner.set_sim_state(now)  # type: ignore[attr-defined]
            env.step(command)
            strayed += not np.allclose(inner.sim_state(), after, atol=1e-4)  # type: ignore[attr-defined]
    env.close()
    assert (strayed > 0) == (share > 0)
