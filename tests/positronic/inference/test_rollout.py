import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from foundation.stopping import DeferredInterrupts
from positronic.dataset import DatasetWriter, DiskEpisode, LocalDataset
from positronic.errors import ContractError, ServerGone, SessionError
from positronic.geom import pose_from_wire
from positronic.inference.rollout import Harness
from positronic.inference.setting import Rollout, Setting
from positronic.policy import Action
from tests.positronic.inference.conftest import IMAGE_SIZE
from tests.positronic.inference.policies import ExpertPolicy, HoldPolicy, HoldSession

FPS = 15


def limit(seconds: float) -> Setting:
    return Setting("stack_cubes", seconds)


class Troubled(HoldPolicy):
    """Holds still until its second inference, which does ``trouble``."""

    def __init__(self, trouble: Any) -> None:
        super().__init__()
        self.trouble = trouble

    def new_session(self, context: Mapping[str, Any] | None = None) -> HoldSession:
        policy = self

        class Session(HoldSession):
            calls = 0

            def infer(self, obs: Mapping[str, Any]) -> list[Action]:
                self.calls += 1
                return policy.trouble() if self.calls == 2 else super().infer(obs)

        return Session(self.meta)


def gone() -> Any:
    raise ServerGone("the server at ws://somewhere went away")


def test_a_solved_task_is_recorded_as_an_episode(env: Any, tmp_path: Path) -> None:
    policy = ExpertPolicy()
    harness = Harness(env, policy, limit(20.0), writer=DatasetWriter(tmp_path))
    result, cause = harness.play(Rollout(1, 3), count=5)
    assert cause is None
    assert result.ended_by == "success"
    assert result.success
    assert result.total_reward == 1.0
    assert result.inference_steps == tuple(range(result.steps))
    assert len(result.inference_ms) == result.steps
    assert [session.closed for session in policy.sessions] == [True]

    assert result.path is not None
    episode = DiskEpisode(result.path)
    observed = (np.arange(result.steps + 1) * 10**9) // FPS
    names = {"robot_state.q", "robot_state.dq", "robot_state.ee_pose", "grip", "object_poses"}
    images = {"image.wrist", "image.exterior"}
    for name in names | images | {"sim_state.mjSTATE_INTEGRATION"}:
        np.testing.assert_array_equal(episode.signals[name].timestamps(), observed, err_msg=name)
    for name in ("robot_commands.pose", "target_grip"):
        np.testing.assert_array_equal(episode.signals[name].timestamps(), observed[:-1])
    assert episode.signals["image.wrist"].shape == (*IMAGE_SIZE, 3)
    assert episode["task"] == env.unwrapped.task
    assert episode["object_names"] == ["red_cube", "green_cube"]
    assert episode["grip_convention"] == {"open": 1.0, "closed": 0.0}
    assert episode["eval.success"] is True
    assert episode["eval.ended_by"] == "success"
    assert episode["eval.seed"] == episode["simulation.seed"] == 3
    assert episode["eval.episode_length"] == result.steps
    assert episode["eval.return"] == 1.0
    assert episode["simulation.iteration"] == 1
    assert episode["simulation.total_iterations"] == 5
    assert episode["inference.policy.type"] == "expert"


def test_the_recording_can_be_replayed_to_the_same_end(env: Any, tmp_path: Path) -> None:
    harness = Harness(env, ExpertPolicy(), limit(20.0), writer=DatasetWriter(tmp_path))
    result, _ = harness.play(Rollout(0, 11))
    assert result.path is not None
    episode = DiskEpisode(result.path)
    poses = np.asarray(episode.signals["robot_commands.pose"].values())
    grips = np.asarray(episode.signals["target_grip"].values())
    states = np.asarray(episode.signals["sim_state.mjSTATE_INTEGRATION"].values())
    seen = {
        name: np.asarray(signal.values())
        for name, signal in episode.signals.items()
        if name in env.observation_space.spaces
    }
    obs, _ = env.reset(seed=11)
    assert seen.keys() == obs.keys()
    for i, (pose, grip, state) in enumerate(zip(poses, grips, states, strict=False)):
        np.testing.assert_allclose(env.unwrapped.sim_state(), state, atol=1e-9)
        for name, values in seen.items():
            if name.startswith("image."):
                assert np.abs(values[i].astype(int) - obs[name]).mean() < 6, name
            else:
                np.testing.assert_allclose(values[i], obs[name], atol=1e-9, err_msg=name)
        obs, _, terminated, _, _ = env.step(np.append(pose, grip))
    assert terminated


def test_the_time_limit_ends_a_rollout_and_chunks_are_played_out(env: Any) -> None:
    result, cause = Harness(env, HoldPolicy(), limit(2.0)).play(Rollout(0, 0))
    assert cause is None
    assert result.ended_by == "timeout"
    assert result.finished
    assert not result.success
    assert result.steps == 30
    assert result.inference_steps == (0, 10, 20)
    assert result.path is None


def test_the_cause_of_a_failure_is_recorded(env: Any, tmp_path: Path) -> None:
    harness = Harness(env, HoldPolicy(), limit(0.4), writer=DatasetWriter(tmp_path))
    result, _ = harness.play(Rollout(0, 0))
    assert result.failure_cause == "never_grasped"
    assert result.outcome == "never grasped"
    assert LocalDataset(tmp_path)[0]["eval.failure_cause"] == "never_grasped"


class Says(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that has its own word for a failure."""

    def __init__(self, env: Any, cause: Any) -> None:
        super().__init__(env)
        self.cause = cause

    def step(self, action: Any) -> Any:
        *seen, info = super().step(action)
        return *seen, {"is_success": info["is_success"], "failure_cause": self.cause}


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        ("spilled", "spilled"),
        ("line\nbreak " + "x" * 99, "line break " + "x" * 26 + "..."),
        (None, None),
        ("", None),
        (7, None),
    ],
)
def test_a_cause_of_others_is_recorded_on_one_short_line(
    env: Any, said: object, recorded: str | None
) -> None:
    result, _ = Harness(Says(env, said), HoldPolicy(), limit(0.2)).play(Rollout(0, 0))
    assert result.failure_cause == recorded
    assert result.outcome == (recorded or "not solved in time")


def test_what_was_solved_or_cut_short_has_no_cause(env: Any) -> None:
    solved, _ = Harness(Says(env, "spilled"), ExpertPolicy(), limit(20.0)).play(Rollout(0, 3))
    assert (solved.success, solved.failure_cause) == (True, None)
    cut_short, _ = Harness(Says(env, "spilled"), Troubled(gone), limit(20.0)).play(Rollout(0, 3))
    assert (cut_short.finished, cut_short.failure_cause) == (False, None)


def test_a_seed_decides_the_rollout_whatever_was_played_before(env: Any) -> None:
    harness = Harness(env, ExpertPolicy(), limit(20.0))
    first = [harness.play(Rollout(0, seed))[0] for seed in (5, 6)]
    second = [harness.play(Rollout(0, seed))[0] for seed in (6, 5)][::-1]
    assert [e.to_json() for e in first] == [e.to_json() for e in second]
    assert first[0].initial_state != first[1].initial_state
    assert first[0].final_state != first[1].final_state


def test_a_server_that_goes_away_leaves_the_part_that_was_played(env: Any, tmp_path: Path) -> None:
    harness = Harness(env, Troubled(gone), limit(20.0), writer=DatasetWriter(tmp_path))
    result, cause = harness.play(Rollout(0, 0))
    assert isinstance(cause, ServerGone)
    assert result.ended_by == "server_gone"
    assert not result.finished
    assert result.steps == 10
    (episode,) = LocalDataset(tmp_path)
    assert len(episode.signals["target_grip"].timestamps()) == 10
    assert len(episode.signals["image.wrist"].timestamps()) == 11
    assert episode["eval.success"] is False
    assert episode["eval.ended_by"] == "server_gone"
    assert "went away" in episode["eval.error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_part_that_was_played(
    env: Any, tmp_path: Path, number: signal.Signals
) -> None:
    def interrupt() -> Any:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal did not interrupt the inference")

    before = signal.getsignal(number)
    with DeferredInterrupts() as interrupts:
        harness = Harness(
            env,
            Troubled(interrupt),
            limit(20.0),
            writer=DatasetWriter(tmp_path),
            interrupts=interrupts,
        )
        result, cause = harness.play(Rollout(0, 0))
    assert signal.getsignal(number) is before
    assert isinstance(cause, KeyboardInterrupt)
    assert result.ended_by == "interrupted"
    assert result.steps == 10
    assert LocalDataset(tmp_path)[0]["eval.ended_by"] == "interrupted"


def test_an_interrupt_while_writing_waits_until_it_is_safe(env: Any) -> None:
    with DeferredInterrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        harness = Harness(env, HoldPolicy(), limit(20.0), interrupts=interrupts)
        with pytest.raises(KeyboardInterrupt):
            harness.play(Rollout(0, 0))


def test_a_wrong_answer_is_named_and_what_was_played_is_kept(env: Any, tmp_path: Path) -> None:
    harness = Harness(
        env, Troubled(lambda: [{"target_grip": 1.0}]), limit(20.0), writer=DatasetWriter(tmp_path)
    )
    result, cause = harness.play(Rollout(0, 0))
    assert isinstance(cause, SessionError)
    assert "expected 'robot_command' and 'target_grip'" in str(cause)
    assert result.ended_by == "error"
    assert len(LocalDataset(tmp_path)) == 1


def test_joint_commands_are_recorded_as_joints(env: Any, tmp_path: Path) -> None:
    goal = np.array(env.reset(seed=0)[0]["robot_state.q"], dtype=np.float64)
    command = {"type": "joint_pos", "positions": goal}
    policy = Troubled(lambda: [{"robot_command": command, "target_grip": 1.0}] * 3)
    harness = Harness(env, policy, limit(13 / FPS), writer=DatasetWriter(tmp_path))
    harness.play(Rollout(0, 0))
    (episode,) = LocalDataset(tmp_path)
    np.testing.assert_allclose(episode.signals["robot_commands.joints"].values()[0], goal)
    first = (10 * 10**9) // FPS
    assert episode.signals["robot_commands.joints"].start_ts == first


def test_a_camera_that_the_policy_needs_is_asked_for_by_flag(env: Any, tmp_path: Path) -> None:
    policy = HoldPolicy()
    policy.meta = {"contract": {"inputs": ["grip", "image.agent_view"]}}
    harness = Harness(env, policy, limit(1.0), writer=DatasetWriter(tmp_path))
    with pytest.raises(
        ContractError, match="--cameras=image.wrist,image.exterior,image.agent_view"
    ):
        harness.play(Rollout(0, 0))
    assert not list(tmp_path.iterdir())


def test_what_a_server_says_is_recorded_flat(env: Any, tmp_path: Path) -> None:
    policy = HoldPolicy()
    policy.meta = {
        "host": "robot",
        "type": "act",
        "contract": {"inputs": ["grip"], "n_action_steps": None, "stats": {"names": [None, "x"]}},
    }
    Harness(env, policy, limit(0.2), writer=DatasetWriter(tmp_path)).play(Rollout(0, 0))
    static = LocalDataset(tmp_path)[0].static
    assert static["inference.policy.type"] == "remote"
    assert static["inference.policy.server.type"] == "act"
    assert static["inference.policy.server.contract.inputs"] == ["grip"]
    assert static["inference.policy.server.contract.stats.names"] == ["x"]


def test_every_observation_is_shown(env: Any) -> None:
    shown: list[str] = []
    harness = Harness(env, HoldPolicy(), limit(0.2), watch=lambda obs, title: shown.append(title))
    harness.play(Rollout(2, 0), count=9)
    assert len(shown) == 4
    assert shown[-1] == "rollout 3 of 9 · 0.2 s"


def test_the_pose_that_was_sent_is_the_pose_that_is_recorded(env: Any, tmp_path: Path) -> None:
    Harness(env, HoldPolicy(), limit(0.2), writer=DatasetWriter(tmp_path)).play(Rollout(0, 4))
    obs = env.reset(seed=4)[0]
    answer = HoldPolicy().new_session().infer(obs)[0]
    (episode,) = LocalDataset(tmp_path)
    recorded = episode.signals["robot_commands.pose"].values()[0]
    np.testing.assert_allclose(recorded, pose_from_wire(answer["robot_command"]["pose"]))
