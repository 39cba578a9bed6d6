"""Every kind of policy, as native LeRobot plays it, one session beside the other."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.errors import UsageError
from positronic.codec import Codec
from positronic.offboard.models.model import Model, ModelSession
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.policy import BATCH_TOLERANCE, ServedPolicy
from positronic.vendors.lerobot.serving.strategies.base import Request
from positronic.vendors.lerobot.serving.strategies.chunks import TemporalEnsemble
from tests.positronic.vendors.lerobot.serving.strategies.episodes import (
    Episode,
    load,
    native_actions,
    seen,
    step_together,
)
from tests.positronic.vendors.lerobot.small_policy import FPS, make_run, one_camera, statistics

STEPS = 11
# Policy, codec, fields, observations looked back at, and actions of one prediction.
KINDS: dict[str, tuple[str, Codec, dict[str, Any], int, int]] = {
    "ensembled": (
        "act",
        codecs.eepose_state(),
        {"n_action_steps": 1, "temporal_ensemble_coeff": 0.01},
        1,
        1,
    ),
    # It looks further back than to its last prediction.
    "diffusion": (
        "diffusion",
        codecs.eepose_state(),
        {"n_obs_steps": 4, "n_action_steps": 2},
        4,
        2,
    ),
    "diffusion-images": (
        "diffusion",
        codecs.eepose_absolute(image_size=48),
        {"use_separate_rgb_encoder_per_camera": False, "n_obs_steps": 2},
        2,
        4,
    ),
    "vqbet": ("vqbet", one_camera(), {}, 3, 4),
    "tdmpc": ("tdmpc", one_camera(), {}, 1, 3),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {
        name: make_run(root / name, codec, (1,), policy=policy, **fields)
        for name, (policy, codec, fields, _, _) in KINDS.items()
    }


@pytest.fixture(scope="module")
def policies(runs: dict[str, Path]) -> dict[str, ServedPolicy]:
    return {name: load(run) for name, run in runs.items()}


def scale(codec: Codec) -> Any:
    action = statistics(codec)["action"]
    return np.maximum(action["std"], np.maximum(abs(action["min"]), abs(action["max"])))


@pytest.mark.parametrize("name", KINDS)
def test_two_interleaved_sessions_each_give_the_bits_of_native_select_action(
    runs: dict[str, Path], policies: dict[str, ServedPolicy], name: str
) -> None:
    codec, per_prediction = KINDS[name][1], KINDS[name][-1]
    policy = policies[name]
    episodes = {seed: Episode(policy, seed) for seed in (11, 12)}
    observations = {seed: seen(seed, STEPS) for seed in episodes}
    for step in range(STEPS):
        for seed, episode in episodes.items():
            episode.step(observations[seed][step])
    for seed, episode in episodes.items():
        expected = native_actions(runs[name], codec, observations[seed], seed)
        np.testing.assert_array_equal(episode.actions, expected)
        assert episode.predictions == -(-STEPS // per_prediction)
        assert episode.predictions > 1
    first, second = (np.array(episode.actions) for episode in episodes.values())
    assert not np.allclose(first, second)


@pytest.mark.parametrize("name", KINDS)
def test_a_batched_session_acts_as_if_it_were_alone(
    policies: dict[str, ServedPolicy], name: str
) -> None:
    policy, tolerance = policies[name], BATCH_TOLERANCE * scale(KINDS[name][1])
    seeds = (3, 4, 5)
    observations = {seed: seen(seed, STEPS) for seed in seeds}
    together = [Episode(policy, seed) for seed in seeds]
    # The third begins later: its history and its queue are of other lengths.
    sizes = set()
    for step in range(STEPS):
        present = together if step >= 2 else together[:2]
        at = [observations[seed][step - 2 * (seed == 5)] for seed in seeds[: len(present)]]
        sizes.add(step_together(present, at))
    assert max(sizes) > 1
    for episode, seed in zip(together, seeds, strict=True):
        alone = Episode(policy, seed)
        for obs in observations[seed][: len(episode.actions)]:
            alone.step(obs)
        assert (np.abs(np.subtract(episode.actions, alone.actions)) <= tolerance).all()


@pytest.mark.parametrize("name", KINDS)
def test_a_request_that_is_tried_again_gives_the_same_and_leaves_no_trace(
    policies: dict[str, ServedPolicy], name: str
) -> None:
    policy = policies[name]
    observations = seen(7, STEPS)
    plain, troubled = Episode(policy, 7), Episode(policy, 7)
    for obs, other in zip(observations, seen(8, STEPS), strict=True):
        plain.step(obs)
        dropped = troubled.prepare(other)  # refused by a full queue, say
        if dropped is not None:
            policy.predict([dropped])  # or answered too late
        request = troubled.prepare(obs)
        if request is not None:
            first, again = (policy.predict([request])[0] for _ in range(2))
            np.testing.assert_array_equal(first.actions, again.actions)
        troubled.finish(None if request is None else again)
    np.testing.assert_array_equal(plain.actions, troubled.actions)


@pytest.mark.parametrize("name", KINDS)
def test_it_says_that_it_wants_every_step(policies: dict[str, ServedPolicy], name: str) -> None:
    kind, _, _, n_obs_steps, _ = KINDS[name]
    policy = policies[name]
    policy.warm_up()
    assert isinstance(policy, Model)
    assert isinstance(policy.new_session(), ModelSession)
    meta = policy.meta
    assert (meta["type"], meta["every_step"], meta["n_obs_steps"]) == (kind, True, n_obs_steps)
    assert meta["action_horizon_sec"] == 1 / FPS
    (action,) = policy.new_session().infer(seen(0, 1)[0])
    assert action["timestamp"] == 0.0


def test_ensembling_takes_other_backends_and_keeps_no_second_copy_of_the_weights(
    runs: dict[str, Path],
) -> None:
    checkpoint = CheckpointDirectory(runs["ensembled"]).checkpoint("000001")
    eager, backend = (TorchBackend(checkpoint, "cpu") for _ in range(2))
    acting, codec = TemporalEnsemble(eager, backend), KINDS["ensembled"][1]
    kept = weakref.ref(eager)
    del eager
    assert kept() is None
    memory, actions = None, []
    for obs in seen(1, STEPS):
        (prediction,) = acting.predict([Request(codec.encode(obs), memory=memory)])
        memory = prediction.memory
        actions.append(prediction.actions[0])
    expected = native_actions(runs["ensembled"], codec, seen(1, STEPS), 0)
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"backend": "onnx"}, {"precision": "bf16"}, {"compile": True}], ids=str
)
def test_what_only_torch_computes_has_no_other_backend(
    runs: dict[str, Path], options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"000001 \(diffusion\) is served by torch in float32"):
        load(runs["diffusion"], **options)
    assert load(runs["diffusion"], backend="auto").meta["backend"] == "torch"


def test_sessions_without_a_seed_draw_differently_and_a_run_can_be_repeated(
    runs: dict[str, Path],
) -> None:
    obs = seen(1, 1)[0]
    one, other = (load(runs["diffusion"]) for _ in range(2))
    first, second = (str(one.new_session().infer(obs)) for _ in range(2))
    assert first != second
    assert [str(other.new_session().infer(obs)) for _ in range(2)] == [first, second]
