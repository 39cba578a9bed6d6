"""What a session remembers, and when."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.errors import CodecError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.policy import ServedPolicy
from positronic.vendors.lerobot.serving.strategies.base import Prediction
from tests.positronic.vendors.lerobot.serving.strategies.episodes import load, seen
from tests.positronic.vendors.lerobot.small_policy import make_run, one_camera

STEPS = 9
MEMORY: dict[str, Any] = {"n_obs_steps": 2, "use_separate_rgb_encoder_per_camera": False}


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> ServedPolicy:
    root = tmp_path_factory.mktemp("runs") / "diffusion"
    return load(make_run(root, one_camera(), (1,), policy="diffusion", **MEMORY))


def played(policy: ServedPolicy, observations: list[dict[str, Any]]) -> list[Any]:
    session = policy.new_session({"seed": 1})
    return [session.infer(obs) for obs in observations]


def test_the_network_runs_only_when_no_action_is_left(diffusion: ServedPolicy) -> None:
    session = diffusion.new_session()
    asked = []
    for obs in seen(1, STEPS):
        request = session.prepare(obs)
        asked.append(request is not None)
        session.finish(None if request is None else diffusion.predict([request])[0])
    assert asked == [True, False, False, False] * 2 + [True]


def test_what_was_seen_between_two_predictions_counts(diffusion: ServedPolicy) -> None:
    plain, other = seen(1, 5), seen(1, 5)
    other[3] = seen(2, 1)[0]  # answered from the queue, and looked back at by the next prediction
    one, two = played(diffusion, plain), played(diffusion, other)
    np.testing.assert_equal(one[:4], two[:4])
    assert str(one[4]) != str(two[4])


@pytest.mark.parametrize(
    "change",
    [
        {"grip": 255.0},
        {"grip": float("nan")},
        {"image.wrist": np.zeros((48, 48, 3))},
        {"seed": 1.5},
    ],
    ids=["unit", "nan", "dtype", "seed"],
)
def test_a_refused_observation_leaves_the_session_as_it_was(
    diffusion: ServedPolicy, change: dict[str, Any]
) -> None:
    observations = seen(1, STEPS)
    session = diffusion.new_session({"seed": 1})
    answers = []
    for obs in observations:
        with pytest.raises(CodecError):
            session.prepare({**seen(2, 1)[0], **change})
        answers.append(session.infer(obs))
    np.testing.assert_equal(answers, played(diffusion, observations))


def test_a_prediction_that_is_no_action_leaves_the_session_as_it_was(
    diffusion: ServedPolicy,
) -> None:
    observations = seen(1, STEPS)
    session = diffusion.new_session({"seed": 1})
    answers = []
    for obs in observations:
        request = session.prepare(obs)
        if request is not None:
            (prediction,) = diffusion.predict([request])
            for row, value, says in ((3, np.nan, "predicted.* not finite"), (0, 0.0, "rotation")):
                actions = prediction.actions.copy()
                actions[row] = value
                with pytest.raises(CodecError, match=says):
                    session.finish(Prediction(actions, prediction.memory))
        answers.append(session.infer(obs))
    np.testing.assert_equal(answers, played(diffusion, observations))


def test_pictures_that_are_drawn_into_the_same_array_are_remembered_as_they_were(
    diffusion: ServedPolicy,
) -> None:
    observations = seen(1, STEPS)
    canvas = np.empty((48, 48, 3), np.uint8)
    session = diffusion.new_session({"seed": 1})
    answers = []
    for obs in observations:
        canvas[:] = obs["image.wrist"]
        answers.append(session.infer({**obs, "image.wrist": canvas}))
    np.testing.assert_equal(answers, played(diffusion, observations))


def test_the_seed_may_come_with_the_first_observation(diffusion: ServedPolicy) -> None:
    first, *others = seen(1, STEPS)
    session = diffusion.new_session()
    answers = [session.infer(obs) for obs in ({**first, "seed": 1}, *others)]
    np.testing.assert_equal(answers, played(diffusion, [first, *others]))


def test_a_chunk_policy_remembers_nothing(tmp_path: Path) -> None:
    policy = load(make_run(tmp_path / "run", codecs.eepose_state(), (1,)))
    session = policy.new_session()
    first, second = seen(1, 2)
    answer = session.infer(first)
    assert str(session.infer(second)) != str(answer)
    np.testing.assert_equal(session.infer(first), answer)
