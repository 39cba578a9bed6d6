import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic import simulator
from positronic.codec import Codec, FlipGrip, Limits, Rename, Vector
from positronic.codec.limits import MARGIN, SMALLEST
from positronic.dataset import LocalDataset
from positronic.errors import CodecError
from positronic.simulator.expert import make_expert
from positronic.vendors.lerobot.codecs import eepose_state

FIXTURE = Path(__file__).parents[4] / "shared/fixtures/recorded_sim"

# As training on demonstrations of stacking found it.
STATS: dict[str, dict[str, Any]] = {
    "observation.state": {
        "min": [0.378, -0.207, 0.012, -0.004, 0.859, -0.442, -0.005, 0.407],
        "max": [0.629, 0.206, 0.318, 0.004, 1.0, 0.513, 0.007, 0.998],
    },
    "observation.environment_state": {
        "min": [0.387, -0.184, 0.019, -1, -1, 0.400, -0.180, 0.019, -1, -1],
        "max": [0.605, 0.184, 0.160, 1, 1, 0.600, 0.179, 0.023, 1, 1],
    },
}
POSE = np.array([0.5, -0.1, 0.3, 0.0, 1.0, 0.0, 0.0])
FAR = np.array([-0.9, 0.9, 1.2, 0.0, 0.0, 0.6, -0.8])  # out of reach of training, not of the arm
ROW = {"robot_state.ee_pose": POSE, "grip": 0.9, "object_poses": np.concatenate([POSE, FAR])}


def check(row: dict[str, Any], codec: Codec | None = None) -> None:
    codec = codec or eepose_state()
    Limits.of(codec, STATS).check(codec.encode(row))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"robot_state.ee_pose": POSE * [1000, 1000, 1000, 1, 1, 1, 1]}, "ee_pose' is 500 "),
        ({"robot_state.ee_pose": POSE * [100, 100, 100, 1, 1, 1, 1]}, "ee_pose' is 50 "),
        (
            {"grip": 255},
            r"'grip' is 255 \(observation.state, element 7\), expected at most 9.98",
        ),
        (
            {"grip": 100},
            "'grip' is 100 .*in training the largest was 0.998; send it in the unit",
        ),
        (
            {"object_poses": ROW["object_poses"] * np.tile([1e3, 1e3, 1e3, 1, 1, 1, 1], 2)},
            "'object_poses' is 1200 ",
        ),
    ],
    ids=["mm", "cm", "0..255", "per cent", "objects in mm"],
)
def test_what_only_another_unit_explains_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        check({**ROW, **change})


def test_joints_in_degrees_are_refused_and_any_in_radians_are_not() -> None:
    codec = Vector("observation.state", (("robot_state.q", 7), ("grip", 1)))
    home = np.array([0.0, -0.78, 0.0, -2.36, 0.0, 1.57, 0.78])
    stats = {
        "observation.state": {"min": [*(home - 0.2), 0.0], "max": [*(home + 0.2), 1.0]},
    }
    limits = Limits.of(codec, stats)
    with pytest.raises(CodecError, match="'robot_state.q' is -135"):
        limits.check(codec.encode({"robot_state.q": np.degrees(home), "grip": 0.5}))
    for angle in (-np.pi, np.pi):
        limits.check(codec.encode({"robot_state.q": np.full(7, angle), "grip": 1.0}))


def test_a_robot_may_be_where_training_never_was() -> None:
    check(ROW)
    check({**ROW, "robot_state.ee_pose": FAR, "grip": 0.0})
    check({**ROW, "grip": -0.2})


def test_a_signal_that_stood_still_in_training_may_move() -> None:
    codec = Vector("observation.state", (("lift", 1),))
    limits = Limits.of(codec, {"observation.state": {"min": [0.0], "max": [0.0]}})
    limits.check(codec.encode({"lift": 0.9 * MARGIN * SMALLEST}))
    with pytest.raises(CodecError, match="'lift' is 1.1"):
        limits.check(codec.encode({"lift": 1.1 * MARGIN * SMALLEST}))


def test_without_min_and_max_nothing_is_refused() -> None:
    codec = eepose_state()
    Limits.of(codec, {"observation.state": {"mean": [0.0] * 8}}).check(
        codec.encode({**ROW, "grip": 1e6})
    )


def test_the_signal_is_named_as_the_client_calls_it() -> None:
    codec = Rename((("grip", "gripper"),)) | (FlipGrip() | eepose_state())
    row = {**ROW, "gripper": 255.0}
    del row["grip"]
    with pytest.raises(CodecError, match="'gripper' is -254"):
        check(row, codec)


def demonstration(env: str, seed: int, **options: Any) -> list[dict[str, Any]]:
    """What the scripted expert sees on its way."""
    player = simulator.make(env, cameras=None, **options)
    expert: Any = make_expert(player)
    observation, _ = player.reset(seed=seed)
    seen, over = [observation], False
    while not over:
        observation, _, terminated, truncated, _ = player.step(expert.act(observation))
        seen.append(observation)
        over = terminated or truncated
    player.close()
    return seen


def test_nothing_that_a_robot_lives_through_is_refused() -> None:
    """Two seeds to learn from, others to be played: of other scenes, noisily, and to no end."""
    codec = eepose_state()
    stats: dict[str, Any] = {}
    rows = [codec.encode(obs) for seed in (0, 1) for obs in demonstration("stack_cubes", seed)]
    for feature in codec.origins:
        column = np.stack([row[feature] for row in rows])
        stats[feature] = {"min": column.min(axis=0), "max": column.max(axis=0)}
    limits = Limits.of(codec, stats)
    played = [
        demonstration("stack_cubes", 2, yaw_range=np.pi, max_episode_steps=60),
        demonstration("stack_cubes", 3, command_noise=0.05, max_episode_steps=60),
    ]
    for obs in itertools.chain(*played):
        limits.check(codec.encode(obs))


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="needs the recorded episodes")
def test_nothing_recorded_elsewhere_is_refused() -> None:
    """Another arm, table and task than those of the statistics."""
    codec = Vector("observation.state", (("robot_state.ee_pose", 7), ("grip", 1)))
    limits = Limits.of(codec, STATS)
    episodes = LocalDataset(FIXTURE)
    assert len(episodes) == 2
    for episode in episodes:
        signals = {name: episode[name] for name in codec.inputs}
        for time in signals["robot_state.ee_pose"].timestamps()[:-1:10]:
            row = {name: signal.time[int(time)][0] for name, signal in signals.items()}
            limits.check(codec.encode(row))


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ([0.5] * 7, "statistics of observation.state have 7 and 8 numbers, expected 8"),
        ([0.5] * 7 + [float("nan")], "statistics of observation.state have a value that is not"),
        ([0.5] * 7 + [float("inf")], "statistics of observation.state have a value that is not"),
        ([0.5] * 7 + [1e38], "statistics of observation.state have a value that is not"),
    ],
)
def test_statistics_that_would_let_everything_through_are_refused(end: Any, says: str) -> None:
    state = STATS["observation.state"] | {"min": end}
    with pytest.raises(CodecError, match=says):
        Limits.of(eepose_state(), STATS | {"observation.state": state})
