import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foundation import storage
from foundation.errors import UsageError
from positronic.codec import Codec
from positronic.errors import CheckpointError, CodecError, ContractError
from positronic.geom import pose_to_wire, quat_from_yaw, quat_mul
from positronic.offboard.models.model import Model, ModelSession
from positronic.policy import Policy, Session
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.policy import BATCH_TOLERANCE, ServedPolicy, load_policy
from tests.positronic.vendors.lerobot.serving.strategies.episodes import commands
from tests.positronic.vendors.lerobot.small_policy import (
    FPS,
    STEPS,
    make_run,
    observation,
    statistics,
)

DOWN = np.array([0.0, 1.0, 0.0, 0.0])

CODECS: dict[str, Codec] = {
    "state": codecs.eepose_state(),
    "images": codecs.eepose_absolute(image_size=(48, 64)),
    "joints": codecs.joints_absolute(image_size=64),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {name: make_run(root / name, codec, (10000,)) for name, codec in CODECS.items()}


def load(run: Path, **arguments: Any) -> ServedPolicy:
    policy: ServedPolicy = load_policy(checkpoints_dir=str(run), device="cpu", **arguments)
    return policy


def native_actions(run: Path, codec: Codec, obs: dict[str, Any]) -> list[NDArray[np.float32]]:
    """What LeRobot's own loop would do: select_action until the queue is used up."""
    import torch
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.utils import prepare_observation_for_inference

    path = run / "checkpoints/010000/pretrained_model"
    policy = ACTPolicy.from_pretrained(path)
    policy.reset()
    pre, post = make_pre_post_processors(policy.config, str(path))
    actions = []
    for _ in range(STEPS):
        arrays = {key: np.array(value) for key, value in codec.encode(obs).items()}
        batch = prepare_observation_for_inference(arrays, torch.device("cpu"), obs["task"])
        actions.append(post(policy.select_action(pre(batch)))[0].numpy())
    return actions


@pytest.mark.parametrize("name", CODECS)
def test_its_actions_are_those_of_native_lerobot(runs: dict[str, Path], name: str) -> None:
    policy = load(runs[name])
    for seed in range(3):
        obs = observation(seed)
        expected = native_actions(runs[name], CODECS[name], obs)
        actions = policy.new_session().infer(obs)
        assert len(actions) == STEPS
        request: Any = policy.new_session().prepare(obs)
        raw = policy.predict([request])[0].actions
        np.testing.assert_allclose(raw, expected, atol=1e-5, rtol=0)
        for i, (action, native) in enumerate(zip(actions, expected, strict=True)):
            command = action["robot_command"]
            assert command["type"] == "cartesian_pos"
            np.testing.assert_allclose(command["pose"], pose_to_wire(native[:7]), atol=1e-5)
            assert action["target_grip"] == pytest.approx(float(native[7]), abs=1e-5)
            assert action["timestamp"] == i / FPS


def test_it_says_what_it_is(runs: dict[str, Path]) -> None:
    policy = load(runs["images"])
    assert isinstance(policy, Policy)
    assert isinstance(policy, Model)
    assert isinstance(policy.new_session(), Session)
    assert isinstance(policy.new_session(), ModelSession)
    meta = dict(policy.new_session().meta)
    assert meta.pop("contract")["codec"]["name"] == "eepose_absolute"
    assert meta == {
        "type": "act",
        "device": "cpu",
        "backend": "torch",
        "precision": "float32",
        "every_step": False,
        "n_obs_steps": 1,
        "action_fps": FPS,
        "action_horizon_sec": STEPS / FPS,
        "image_sizes": {"image.wrist": [64, 48], "image.exterior": [64, 48]},
        "checkpoint_id": "010000",
        "checkpoint_path": "images/checkpoints/010000",
    }


@pytest.mark.parametrize("name", ["state", "images"])
def test_each_row_of_a_batch_is_what_it_would_be_alone(runs: dict[str, Path], name: str) -> None:
    policy = load(runs[name])
    sessions = [policy.new_session() for _ in range(5)]
    requests: Any = [session.prepare(observation(i)) for i, session in enumerate(sessions)]
    predictions = policy.predict(requests)
    assert len(predictions) == 5
    action = statistics(CODECS[name])["action"]
    scale = np.maximum(np.abs(action["min"]), np.abs(action["max"]))
    for seed, (session, together) in enumerate(zip(sessions, predictions, strict=True)):
        (alone,) = policy.predict([requests[seed]])
        assert (np.abs(together.actions - alone.actions) <= BATCH_TOLERANCE * scale).all()
        np.testing.assert_equal(session.finish(together), commands(policy, together.actions))


def test_it_says_how_much_memory_its_weights_hold(runs: dict[str, Path]) -> None:
    weights = runs["state"] / "checkpoints/010000/pretrained_model/model.safetensors"
    # Its header, and buffers that are not saved.
    assert load(runs["state"]).nbytes == pytest.approx(weights.stat().st_size, rel=0.2)


def test_the_same_observation_gives_the_same_bits_in_every_session(runs: dict[str, Path]) -> None:
    policy = load(runs["images"])
    first = str(policy.new_session().infer(observation(1)))
    session = policy.new_session()
    session.infer(observation(2))
    assert str(session.infer(observation(1))) == first
    assert str(load(runs["images"]).new_session().infer(observation(1))) == first


def turning(rows: int) -> Iterator[dict[str, Any]]:
    """A robot that turns on and on, 100 degrees from one observation to the next."""
    for index in range(rows):
        obs = observation(index)
        obs["robot_state.ee_pose"][3:] = quat_mul(quat_from_yaw(np.radians(100) * index), DOWN)
        yield obs


@pytest.mark.parametrize("name", ["state", "images"])
def test_the_sign_of_a_quaternion_makes_no_difference(runs: dict[str, Path], name: str) -> None:
    policy = load(runs[name])
    plain, other = policy.new_session(), policy.new_session()
    for index, obs in enumerate(turning(12)):
        negated = {**obs, "robot_state.ee_pose": obs["robot_state.ee_pose"].copy()}
        negated["robot_state.ee_pose"][3:] *= (-1) ** index
        assert str(plain.infer(obs)) == str(other.infer(negated))


def test_a_session_encodes_as_conversion_does(runs: dict[str, Path]) -> None:
    policy = load(runs["state"])
    codec = policy.contract.make_codec()
    rows = list(turning(12))
    columns = {name: np.stack([row[name] for row in rows]) for name in codec.inputs}
    expected = np.asarray(codec.encode_rows(columns)["observation.state"])
    assert (expected[:, 4] < 0).any()  # it goes past half a turn from the reference
    session = policy.new_session()
    for row, wanted in zip(rows, expected, strict=True):
        request = session.prepare(row)
        # Asked again before it was answered, refused, or asked nonsense: all is as it was.
        session.prepare({**row, "robot_state.ee_pose": rows[0]["robot_state.ee_pose"]})
        with pytest.raises(CodecError):
            session.prepare({**row, "robot_state.ee_pose": np.zeros(7)})
        request = session.prepare(row)
        assert request is not None
        np.testing.assert_array_equal(request.observation["observation.state"], wanted)
        session.finish(policy.predict([request])[0])


def test_a_checkpoint_of_an_older_version_sees_signs_as_they_are_sent(tmp_path: Path) -> None:
    make_run(tmp_path, codecs.eepose_state(quat_reference=None), (1,))
    policy = load(tmp_path)
    session = policy.new_session()
    for index, row in enumerate(turning(4)):
        row["robot_state.ee_pose"][3:] *= (-1) ** index
        request = session.prepare(row)
        assert request is not None
        state = request.observation["observation.state"]
        np.testing.assert_array_equal(state[:7], row["robot_state.ee_pose"].astype(np.float32))
        session.finish(policy.predict([request])[0])


def test_sessions_in_several_threads_get_their_own_answers(runs: dict[str, Path]) -> None:
    policy = load(runs["state"])
    expected = {seed: str(policy.new_session().infer(observation(seed))) for seed in range(4)}
    wrong: list[int] = []

    def robot(seed: int) -> None:
        session = policy.new_session()
        for _ in range(10):
            if str(session.infer(observation(seed))) != expected[seed]:
                wrong.append(seed)

    threads = [threading.Thread(target=robot, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_read_only_arrays_from_the_wire_are_taken_and_left_alone(runs: dict[str, Path]) -> None:
    policy = load(runs["images"])
    obs = observation(size=(48, 64))
    for value in obs.values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    before = obs["image.wrist"].copy()
    policy.new_session().infer(obs)
    np.testing.assert_array_equal(obs["image.wrist"], before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grip": None}, "grip"),
        (
            {"robot_state.ee_pose": np.zeros(3)},
            r"'robot_state.ee_pose' has shape \(3,\), expected 7",
        ),
        ({"image.wrist": np.zeros((4, 4), np.uint8)}, r"expected uint8 \(H, W, 3\)"),
        ({"image.wrist": ...}, "needs image.wrist"),
        (
            {"robot_state.ee_pose": np.array([412.0, 0, 306, 0, 1, 0, 0])},
            r"ee_pose' is 412 \(observation.state, element 0\), expected at most 15: in training",
        ),
        ({"grip": 255}, "'grip' is 255 .*: in training the largest was 1.5; send it in the"),
    ],
)
def test_an_observation_that_does_not_fit_is_named(
    runs: dict[str, Path], change: dict[str, Any], says: str
) -> None:
    session = load(runs["images"]).new_session()
    obs = {k: v for k, v in {**observation(), **change}.items() if v is not ...}
    with pytest.raises(CodecError, match=says):
        session.infer(obs)
    assert len(session.infer(observation())) == STEPS


def test_actions_that_are_not_finite_are_refused(runs: dict[str, Path]) -> None:
    import torch

    policy = load(runs["state"])
    with torch.no_grad():
        policy._backend.policy.model.action_head.bias.fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(CodecError, match="not finite"):
        policy.warm_up()
    with pytest.raises(CodecError, match="not finite"):
        policy.new_session().infer(observation())


def test_the_backbone_is_not_downloaded(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("no network")

    config = runs["joints"] / "checkpoints/010000/pretrained_model/config.json"
    text = config.read_text()
    named = '"pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"'
    config.write_text(text.replace('"pretrained_backbone_weights": null', named))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision._internally_replaced_utils.load_state_dict_from_url", refuse)
    try:
        assert load(runs["joints"]).new_session().infer(observation())
    finally:
        config.write_text(text)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", CODECS["state"], (1,))
    weights = run / "checkpoints/000001/pretrained_model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="run/checkpoints/000001 cannot be loaded: ") as error:
        load(run)
    assert "\n" not in str(error.value)


def test_another_codec_and_an_absent_device_are_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(ContractError, match="trained with codec 'eepose_state', not with"):
        load(runs["state"], codec=CODECS["joints"])
    for device in ("cuda:77", "nonsense"):
        with pytest.raises(UsageError, match=f"--device={device} cannot be used here"):
            load_policy(checkpoints_dir=str(runs["state"]), device=device)


def test_a_checkpoint_in_s3_acts_as_the_local_one(s3: Any, runs: dict[str, Path]) -> None:
    step = "checkpoints/010000"
    storage.publish(runs["state"] / step, f"s3://bucket/runs/state/{step}")
    policy: ServedPolicy = load_policy(checkpoints_dir="s3://bucket/runs/state", device="cpu")
    local = load(runs["state"])
    assert policy.meta == local.meta
    for ours, theirs in zip(
        policy.new_session().infer(observation(0)),
        local.new_session().infer(observation(0)),
        strict=True,
    ):
        np.testing.assert_equal(ours, theirs)


FIRST = """
import sys
from getiaction import deferred_imports
deferred_imports.install()
from tests.positronic.vendors.lerobot.small_policy import observation
from positronic.vendors.lerobot.serving.policy import load_policy
policy = load_policy(checkpoints_dir=sys.argv[1], device="cpu")
observed, session = observation(1), policy.new_session()
before = set(sys.modules)
session.infer(observed)
print(sorted(set(sys.modules) - before))
"""


def test_the_first_observation_waits_for_no_import(runs: dict[str, Path]) -> None:
    command = [sys.executable, "-c", FIRST, str(runs["images"])]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
