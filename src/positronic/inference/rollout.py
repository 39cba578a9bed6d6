"""Rollout harness: observe, infer, execute the actions in simulated time, record."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.stopping import DeferredInterrupts
from foundation.text import printable
from positronic.dataset.trained_on import without_recordings
from positronic.errors import ContractError, ServerGone, SessionError
from positronic.inference.recording import RolloutRecorder, policy_statics
from positronic.inference.results import EpisodeResult, jump_summary
from positronic.inference.setting import Rollout, Setting, is_gym_id
from positronic.inference.video import VideoDirectory
from positronic.policy import Action, Player, Policy, Session

__all__ = ["Harness"]

if TYPE_CHECKING:
    import gymnasium

    from positronic.dataset import DatasetWriter

Observation = Mapping[str, Any]
MAX_CAUSE = 40  # characters of a cause of failure


@dataclass
class Harness:
    """Plays rollouts of ``policy`` in ``env`` (one of ``positronic.simulator``).

    Simulated time stands still while the policy infers, unless the setting charges for it. Each
    rollout has its own session, so it depends only on its seed, the policy and the charged delays.
    ``watch`` gets every observation; a video of each rollout is written to ``videos``. With
    ``publish=False`` recordings stay hidden until ``DatasetWriter.publish``.
    """

    env: "gymnasium.Env[Any, Any]"
    policy: Policy
    setting: Setting
    writer: "DatasetWriter | None" = None
    videos: VideoDirectory | None = None
    watch: Callable[[Observation, str], None] | None = None
    interrupts: DeferredInterrupts = field(default_factory=DeferredInterrupts)
    publish: bool = True

    def __post_init__(self) -> None:
        world: Any = self.env.unwrapped
        self._world = world
        self._foreign = is_gym_id(self.setting.env)
        self._fps = int(world.control_fps)
        # The tolerance makes 20 s at 15 Hz 300 commands despite floating-point rounding.
        self._max_steps = max(1, int(np.floor(self.setting.simulation_time * self._fps + 1e-6)))
        self._task = self.setting.task or str(world.task)
        self.meta: Mapping[str, Any] = {}
        """Metadata of the policy in the last session."""

    def play(self, rollout: Rollout, count: int = 1) -> tuple[EpisodeResult, BaseException | None]:
        """Play ``rollout``, one of ``count``, from the initial state drawn with its seed.

        Returns the result, and the exception that cut the rollout short, if any; the recording up
        to then is kept.

        Raises:
            SessionError, ContractError: no session could be opened, or the policy needs signals
                that this environment does not have. Nothing has been recorded then.
            KeyboardInterrupt: interrupted before the rollout began.
        """
        began = time.perf_counter()
        self.interrupts.check()
        obs, _ = self.env.reset(seed=rollout.seed)
        initial = _digest(self._world.sim_state())
        with self.interrupts.allowed():
            # With the seed, a stochastic policy repeats its samples when the rollout is repeated.
            session = self.policy.new_session({"task": self._task, "seed": rollout.seed})
        self.meta = without_recordings(session.meta)
        recorder, player = RolloutRecorder(), None
        try:
            _require_inputs(session.meta, obs, self._world.cameras)
            player = self.setting.player(session, delay=self.setting.charged(rollout.delay))
            recorder.open(self.writer, self.videos, rollout.index, self._fps)
            episode = _Progress(obs)
            cause = self._loop(episode, player, recorder, f"rollout {rollout.index + 1} of {count}")
        except BaseException:
            recorder.abort()
            raise
        finally:
            _close(session, player)
        result = EpisodeResult(
            seed=rollout.seed,
            ended_by=episode.ended_by,
            steps=episode.steps,
            total_reward=episode.total_reward,
            initial_state=initial,
            final_state=_digest(self._world.sim_state()),
            inference_steps=tuple(episode.asked),
            inference_ms=tuple(1000 * seconds for seconds in player.latencies),
            wall_s=time.perf_counter() - began,
            delay=rollout.delay,
            starved=player.starved,
            jumps=tuple(player.jumps),
            error=None if cause is None else str(cause) or type(cause).__name__,
            failure_cause=(
                episode.failure_cause if episode.ended_by in ("timeout", "terminated") else None
            ),
        )
        statics = self._statics(result, rollout.index, count, without_recordings(session.meta))
        return recorder.finish(result, statics, publish=self.publish), cause

    def _loop(
        self, episode: "_Progress", player: Player, recorder: RolloutRecorder, label: str
    ) -> BaseException | None:
        """Play until success, the time limit or an exception; return the exception."""
        cause: BaseException | None = None
        try:
            self._show(episode, label)
            while episode.steps < self._max_steps and episode.ended_by == "timeout":
                self._step(episode, player, recorder)
                self._show(episode, label)
        except KeyboardInterrupt as error:
            episode.ended_by, cause = "interrupted", error
        except ServerGone as error:
            episode.ended_by, cause = "server_gone", error
        except Exception as error:
            episode.ended_by, cause = "error", error
        recorder.observe(episode.steps, episode.obs, self._state())
        return cause

    def _state(self) -> NDArray[np.float64] | None:
        """The simulator's state to record, from which a recording can be continued."""
        state: NDArray[np.float64] | None = None if self._foreign else self._world.sim_state()
        return state

    def _show(self, episode: "_Progress", label: str) -> None:
        if self.watch is not None:
            self.watch(episode.obs, f"{label} · {episode.steps / self._fps:.1f} s")

    def _step(self, episode: "_Progress", player: Player, recorder: RolloutRecorder) -> None:
        step, obs = episode.steps, episode.obs
        asked = player.asked
        with self.interrupts.allowed():
            action = player.action(obs, step / self._fps)
        if player.asked > asked:
            episode.asked.append(step)
        command: Any
        if self._foreign:
            command = self._world.command(action)
            recorder.observe(step, obs, self._state())
            recorder.vector(step, command)
        else:
            robot_command, target_grip = _command(action)
            command = self._world.command_to_action(robot_command, target_grip)
            recorder.observe(step, obs, self._state())
            recorder.command(step, robot_command, target_grip)
        episode.obs, reward, terminated, _, info = self.env.step(command)
        episode.steps += 1
        episode.total_reward += float(reward)
        episode.failure_cause = _failure_cause(info)
        if info.get("is_success"):
            episode.ended_by = "success"
        elif terminated:
            episode.ended_by = "terminated"

    def _statics(
        self, result: EpisodeResult, index: int, count: int, meta: Mapping[str, Any]
    ) -> dict[str, Any]:
        jumps = jump_summary(result.jumps)
        statics = {
            **self._world.statics,
            "task": self._task,
            "simulation.seed": result.seed,
            "simulation.iteration": index,
            "simulation.total_iterations": count,
            "eval.success": result.success,
            "eval.ended_by": result.ended_by,
            "eval.seed": result.seed,
            "eval.episode_length": result.steps,
            "eval.return": result.total_reward,
            "eval.timeout": self.setting.simulation_time,
            "eval.player": self.setting.player_name,
            "eval.charge_inference_time": self.setting.charge_inference_time,
            "eval.starved_steps": result.starved,
            "eval.chunk_changes": jumps["count"],
            **policy_statics(meta),
        }
        if result.jumps:
            statics |= {f"eval.chunk_jump_{name}": jumps[name] for name in ("mean_mm", "max_mm")}
        if result.failure_cause is not None:
            statics["eval.failure_cause"] = result.failure_cause
        if result.delay is not None:
            statics["eval.inference_delay"] = result.delay
        return statics if result.error is None else {**statics, "eval.error": result.error}


@dataclass
class _Progress:
    """State of a running rollout."""

    obs: Observation
    steps: int = 0
    total_reward: float = 0.0
    ended_by: str = "timeout"
    failure_cause: str | None = None
    asked: list[int] = field(default_factory=list)


def _command(action: Action) -> tuple[Mapping[str, Any], float]:
    command = action.get("robot_command")
    if not isinstance(command, Mapping) or "target_grip" not in action:
        raise SessionError(
            f"the policy's action has {sorted(action)}; expected 'robot_command' and 'target_grip'"
        )
    return command, float(action["target_grip"])


def _failure_cause(info: Mapping[str, Any]) -> str | None:
    cause = info.get("failure_cause")
    return printable(cause, MAX_CAUSE) if isinstance(cause, str) and cause else None


def _require_inputs(meta: Mapping[str, Any], obs: Observation, cameras: tuple[str, ...]) -> None:
    contract = meta.get("contract")
    inputs = contract.get("inputs") or () if isinstance(contract, Mapping) else ()
    missing = [name for name in inputs if name not in obs and name != "task"]
    if not missing:
        return
    images = [name for name in missing if name.startswith("image.")]
    mend = (
        f"add --cameras={','.join([*cameras, *images])}"
        if images == missing
        else "choose the environment that it was trained for with --env"
    )
    raise ContractError(
        f"the policy was trained on {', '.join(missing)}, which this environment does not have"
        f" (it has {', '.join(obs)}): {mend}"
    )


def _digest(state: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(state).tobytes()).hexdigest()[:16]


def _close(session: Session, player: Player | None) -> None:
    # The rollout's result is already known; an error while closing does not matter.
    with suppress(OSError, SessionError):
        session.close()
    if player is not None:
        player.close()
