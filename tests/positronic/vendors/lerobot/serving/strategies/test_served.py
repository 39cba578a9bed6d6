"""Policies that are asked at every step, through the server and its clients."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.errors import SessionError
from positronic.offboard.client import InferenceClient
from positronic.offboard.models.batching import Batching
from positronic.policy import ChunkPlayer
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.policy import ServedPolicy
from tests.positronic.offboard.running import serving
from tests.positronic.offboard.small_models import Source
from tests.positronic.vendors.lerobot.serving.strategies.episodes import load, seen
from tests.positronic.vendors.lerobot.small_policy import FPS, make_run

STEPS = 9


class Trained(Source):
    """A policy that is there already, whose batches are counted."""

    def __init__(self, policy: ServedPolicy) -> None:
        super().__init__(["010000"])
        self.policy = policy
        self.batches: list[int] = []
        predict = policy.predict

        def counted(requests: Any) -> Any:
            self.batches.append(len(requests))
            return predict(requests)

        policy.predict = counted  # type: ignore[method-assign]

    def load(self, model_id: str, say: Callable[[str], None]) -> Any:
        return self.policy


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "diffusion"
    fields = {"n_obs_steps": 4, "n_action_steps": 2}
    return make_run(root, codecs.eepose_state(), (1,), policy="diffusion", **fields)  # type: ignore[arg-type]


def in_process(run: Path, seed: int) -> list[Any]:
    session = load(run).new_session({"seed": seed})
    return [session.infer(obs) for obs in seen(seed, STEPS)]


def test_robots_that_ask_at_once_are_answered_as_if_each_were_alone(run: Path) -> None:
    source = Trained(load(run))
    answers: dict[int, list[Any]] = {seed: [] for seed in (1, 2, 3)}
    at_once = threading.Barrier(len(answers))

    def robot(port: int, seed: int) -> None:
        with InferenceClient("127.0.0.1", port).new_session(context={"seed": seed}) as session:
            player = ChunkPlayer(session)
            for step, obs in enumerate(seen(seed, STEPS)):
                at_once.wait(60)
                answers[seed].append(player.action(obs, step / FPS))
            assert player.inferences == STEPS

    with serving(source, memory_bytes=10**9, batching=Batching(window_s=0.5)) as port:
        robots = [threading.Thread(target=robot, args=(port, seed)) for seed in answers]
        for thread in robots:
            thread.start()
        for thread in robots:
            thread.join(60)
    # Every second observation needs no network.
    assert sum(source.batches) == len(answers) * -(-STEPS // 2)
    assert max(source.batches) == len(answers)
    for seed, given in answers.items():
        for action, (expected,) in zip(given, in_process(run, seed), strict=True):
            np.testing.assert_allclose(
                action["robot_command"]["pose"], expected["robot_command"]["pose"], atol=1e-4
            )
            assert action["target_grip"] == pytest.approx(expected["target_grip"], abs=1e-4)


def test_a_wrong_unit_is_refused_over_the_wire_and_the_episode_goes_on(run: Path) -> None:
    with (
        serving(Trained(load(run)), memory_bytes=10**9) as port,
        InferenceClient("127.0.0.1", port).new_session(context={"seed": 1}) as session,
    ):
        assert session.meta["every_step"]
        assert session.meta["n_obs_steps"] == 4
        for obs, expected in zip(seen(1, STEPS), in_process(run, 1), strict=True):
            with pytest.raises(SessionError, match="'grip' is 255 .*expected at most 15"):
                session.infer({**seen(2, 1)[0], "grip": 255})
            np.testing.assert_equal(session.infer(obs), expected)
