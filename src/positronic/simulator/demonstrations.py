"""Record demonstrations of the scripted expert as raw episodes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from positronic import simulator
from positronic.simulator.expert import DEFAULT_SPEED_M_S, Expert, make_expert
from positronic.simulator.mishaps import Mishaps

if TYPE_CHECKING:
    from positronic.dataset import DatasetWriter, EpisodeWriter
    from positronic.simulator.env import PandaEnv

SIM_STATE = "sim_state.mjSTATE_INTEGRATION"


@dataclass(frozen=True)
class Attempt:
    """Result for one seed; ``staged`` is the episode's directory if it was kept."""

    seed: int
    success: bool
    steps: int
    staged: Path | None


@dataclass(frozen=True)
class Scenario:
    """Settings of the demonstrations to record.

    ``options`` go to the environment's constructor; ``speed`` is the expert's, in m/s; ``mishaps``
    is the share of attempts with a deliberate mishap; an attempt fails after ``max_steps``, by
    default three times the steps that the expert needs.
    """

    env: str
    options: dict[str, Any] = field(default_factory=dict)
    speed: float = DEFAULT_SPEED_M_S
    mishaps: float = 0.0
    max_steps: int = 200


class Recorder:
    """Runs the expert on seeds in one environment and stages the recorded episodes.

    An observation and the command that follows it have the same timestamp, ``i / fps``; the last
    observation has no command. ``robot_commands.pose`` is the expert's command. With
    ``command_noise`` the executed command differs, which leads to states that a perfect run never
    visits, with the expert's corrections recorded there (Laskey et al., 2017): the noise is in the
    states, not in the commands.
    """

    def __init__(self, scenario: Scenario, writer: "DatasetWriter") -> None:
        """Open the scenario's environment; episodes are staged in the writer's root."""
        self._env = simulator.make(
            scenario.env, max_episode_steps=scenario.max_steps, **scenario.options
        )
        self._inner = cast("PandaEnv", self._env.unwrapped)
        self._expert: Expert = make_expert(self._env, scenario.speed)
        self._statics = {**self._inner.statics, "recording.expert_speed": scenario.speed}
        self._mishaps = scenario.mishaps
        self._writer = writer

    def attempt(self, seed: int, keep_failure: bool = False) -> Attempt:
        """Run the expert on one seed; stage the episode on success, or with ``keep_failure``."""
        with self._writer.new_episode() as episode:
            success, steps = self._play(seed, episode)
            if not (success or keep_failure):
                episode.abort()
                return Attempt(seed, success, steps, None)
            for name, value in self._statics.items():
                episode.set_static(name, value)
            episode.set_static("simulation.seed", seed)
            episode.set_static("eval.success", success)
            return Attempt(seed, success, steps, episode.stage())

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _play(self, seed: int, episode: "EpisodeWriter") -> tuple[bool, int]:
        observation, info = self._env.reset(seed=seed)
        mishaps = Mishaps(self._mishaps, seed)
        steps, over = 0, False
        while True:
            now = (steps * 10**9) // int(self._inner.control_fps)
            for name, value in observation.items():
                episode.append(name, value, now)
            episode.append(SIM_STATE, self._inner.sim_state(), now)
            if over:
                if mishaps.begun is not None:
                    episode.set_static("recording.mishap", mishaps.begun.kind)
                return bool(info["is_success"]), steps
            action = self._expert.act(observation)
            episode.append("robot_commands.pose", action[:7], now)
            episode.append("target_grip", float(action[7]), now)
            executed = mishaps.execute(action, observation)
            observation, _, terminated, truncated, info = self._env.step(executed)
            over = terminated or truncated
            steps += 1
