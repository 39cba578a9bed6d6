"""What a session remembers, and when."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.codec import Codec, DeltaPose, Image, Parallel, RelativePose, Vector
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


def motions(kind: type[Any]) -> Codec:
    state = Vector("observation.state", (("grip", 1),))
    image = Image("observation.images.left", "image.wrist", (48, 48))
    return Parallel((state, image, kind()), "motions")


def recording(rows: int = 12) -> list[dict[str, Any]]:
    """Rows of a robot that follows its command two centimetres behind."""
    found = []
    for step, obs in enumerate(seen(0, rows)):
        target = np.array([0.3 + 0.01 * step, 0.1, 0.2, 0.0, 1.0, 0.0, 0.0])
        lag = [0.02, 0, 0, 0, 0, 0, 0]
        commands = {"robot_commands.pose": target, "target_grip": 0.5}
        found.append({**obs, **commands, "robot_state.ee_pose": target - lag})
    return found


def places(answer: list[Any]) -> Any:
    return np.stack([action["robot_command"]["pose"][:3] for action in answer])


@pytest.mark.parametrize("kind", [RelativePose, DeltaPose])
def test_a_chunk_is_relative_to_the_observation_that_it_was_predicted_from(
    tmp_path: Path, kind: type[Any]
) -> None:
    codec, rows = motions(kind), recording()
    policy = load(make_run(tmp_path / "run", codec, (1,)))
    names = (*codec.inputs, *codec.action_inputs)
    targets = codec.encode_action_rows({n: np.stack([row[n] for row in rows]) for n in names})
    session = policy.new_session()
    for start in (0, 4):
        assert session.prepare(rows[start]) is not None
        found = places(session.finish(Prediction(targets[start : start + 6], None)))
        wanted = np.stack([row["robot_commands.pose"][:3] for row in rows[start : start + 6]])
        # Steps alone do not tell how far the robot is behind the command in force.
        behind = np.eye(3)[0] * (0.01 if kind is DeltaPose and start else 0.0)
        np.testing.assert_allclose(found, wanted - behind, atol=1e-6)
    with pytest.raises(CodecError, match=r"ee_pose"):
        session.prepare({k: v for k, v in rows[0].items() if k != "robot_state.ee_pose"})


@pytest.mark.parametrize("kind", [RelativePose, DeltaPose])
def test_actions_that_wait_their_turn_are_relative_to_it_too(
    tmp_path: Path, kind: type[Any]
) -> None:
    codec, rows = motions(kind), recording()
    run = make_run(tmp_path / "run", codec, (1,), policy="diffusion", **MEMORY)
    policy = load(run)
    names = (*codec.inputs, *codec.action_inputs)
    targets = codec.encode_action_rows({n: np.stack([row[n] for row in rows]) for n in names})
    session, found = policy.new_session(), []
    for step, obs in enumerate(rows[:8]):
        # Where the robot is at the later observations of a prediction does not count.
        away = {
            "robot_state.ee_pose": obs["robot_state.ee_pose"] + [0, 0.3 * (step % 4), 0, 0, 0, 0, 0]
        }
        request = session.prepare(obs | away)
        assert (request is None) == bool(step % 4)
        prediction = None if request is None else Prediction(targets[step : step + 4], None)
        found.append(places(session.finish(prediction))[0])
    # The command of the step before is in force, so steps alone are exact as well.
    np.testing.assert_allclose(
        found, [row["robot_commands.pose"][:3] for row in rows[:8]], atol=1e-6
    )
