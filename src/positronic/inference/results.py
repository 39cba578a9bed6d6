"""Results of a run as plain values: one ``EpisodeResult`` per rollout, one ``RunResult``."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from positronic.inference.statistics import Latency, Rate
from positronic.policy import Jump

__all__ = ["EpisodeResult", "RunResult"]

FORMAT = 2
# Reasons for the end of a rollout. Only finished rollouts count towards the success rate.
FINISHED = ("success", "timeout", "terminated")
UNFINISHED = ("server_gone", "interrupted", "error")
WORDS = {
    "success": "success",
    "timeout": "not solved in time",
    "terminated": "failed",
    "server_gone": "server gone",
    "interrupted": "interrupted",
    "error": "error",
}
"""How a rollout ended, for people."""


@dataclass(frozen=True)
class EpisodeResult:
    """Result of one rollout.

    ``steps`` is the number of executed commands, ``total_reward`` the sum of rewards,
    ``inference_steps`` the steps at which new actions were requested, ``inference_ms`` the duration
    of each such call. ``initial_state`` and ``final_state`` are short digests of the simulator's
    state: equal digests mean bit-equal states. ``delay`` is the control time in seconds charged per
    inference, None if not fixed. ``starved`` is the number of steps whose action did not arrive in
    time, ``jumps`` has one entry per change of chunks. ``path`` is the recording and ``video`` the
    video file, None if there is none. ``failure_cause`` is the environment's word for why it
    failed, None where it has none.
    """

    seed: int
    ended_by: str
    steps: int
    total_reward: float
    initial_state: str
    final_state: str
    inference_steps: tuple[int, ...] = ()
    inference_ms: tuple[float, ...] = ()
    wall_s: float = 0.0
    delay: float | None = None
    starved: int = 0
    jumps: tuple[Jump, ...] = ()
    path: Path | None = None
    video: Path | None = None
    error: str | None = None
    failure_cause: str | None = None

    def __post_init__(self) -> None:
        if self.ended_by not in FINISHED + UNFINISHED:
            raise ValueError(
                f"ended_by is {self.ended_by!r}: expected one of {FINISHED + UNFINISHED}"
            )

    @property
    def success(self) -> bool:
        """Whether the task was solved."""
        return self.ended_by == "success"

    @property
    def finished(self) -> bool:
        """Whether the rollout ran to its end and counts towards the success rate."""
        return self.ended_by in FINISHED

    @property
    def failed(self) -> bool:
        """Whether the rollout ran to its end without solving the task."""
        return self.finished and not self.success

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        cause = self.failure_cause
        return WORDS[self.ended_by] if cause is None else cause.replace("_", " ")

    @property
    def latency(self) -> Latency:
        """Latency of the inference calls of this rollout."""
        return Latency.of(self.inference_ms)

    def recorded_at(self, path: Path) -> "EpisodeResult":
        """Return the same result with the path of its recording."""
        return replace(self, path=path)

    def to_json(self) -> dict[str, Any]:
        """Return the reproducible values, which are equal when the same seed is run again."""
        return {
            "seed": self.seed,
            "success": self.success,
            "ended_by": self.ended_by,
            "failure_cause": self.failure_cause,
            "steps": self.steps,
            "return": self.total_reward,
            "inference_steps": list(self.inference_steps),
            "inference_delay": self.delay,
            "starved_steps": self.starved,
            "chunk_jumps": jump_summary(self.jumps),
            "initial_state": self.initial_state,
            "final_state": self.final_state,
        }


@dataclass
class RunResult:
    """Results of all rollouts of one command, and where they came from.

    ``policy`` is the policy's metadata (of a server: its ready message), ``started`` an ISO 8601
    time with offset, ``versions`` maps distributions to their versions, ``error`` is the reason why
    the run stopped early. ``delays`` are the seconds of control time charged per inference, with
    ``num_iterations`` rollouts at each; empty if not fixed. ``published`` maps local directories to
    the location of their content after the run, local or in S3. ``part_of`` is a comparison's page,
    relative to the report.
    """

    env: str
    task: str
    seed: int
    num_iterations: int
    simulation_time: float
    control_fps: float
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    started: str
    command: tuple[str, ...]
    versions: Mapping[str, str]
    player: str = "synchronous"
    charge_inference_time: bool = False
    delays: tuple[float, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    episodes: list[EpisodeResult] = field(default_factory=list)
    wall_s: float = 0.0
    error: str | None = None
    published: Mapping[Path, str] = field(default_factory=dict)
    part_of: str = ""

    @property
    def count(self) -> int:
        """Number of planned rollouts, over all delays."""
        return self.num_iterations * max(1, len(self.delays))

    @property
    def rate(self) -> Rate:
        """Success rate of the finished rollouts."""
        return rate_of(self.episodes)

    @property
    def named_failures(self) -> dict[str, int]:
        """How many failures had which outcome in words; empty where the causes are unknown."""
        failures = [episode for episode in self.episodes if episode.failed]
        if not any(episode.failure_cause for episode in failures):
            return {}
        return dict(Counter(episode.outcome for episode in failures).most_common())

    @property
    def by_delay(self) -> dict[float, list[EpisodeResult]]:
        """The rollouts at each delay; empty unless there are several delays."""
        if len(self.delays) < 2:
            return {}
        return {delay: [e for e in self.episodes if e.delay == delay] for delay in self.delays}

    @property
    def mean_steps(self) -> float | None:
        """Mean length of the finished rollouts in steps, None without finished rollouts."""
        steps = [episode.steps for episode in self.episodes if episode.finished]
        return sum(steps) / len(steps) if steps else None

    @property
    def latency(self) -> Latency:
        """Latency of all inference calls of the run."""
        return Latency.of([ms for episode in self.episodes for ms in episode.inference_ms])

    @property
    def contract(self) -> Mapping[str, Any] | None:
        """The policy's contract, None if it has none."""
        contract = self.policy.get("contract")
        return contract if isinstance(contract, Mapping) else None

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON.

        Everything that can differ between two runs of one policy on the same seeds (times,
        durations, paths) is under ``run``; the rest is reproducible.
        """
        rate = self.rate
        latency = self.latency
        return {
            "format": FORMAT,
            "env": self.env,
            "task": self.task,
            "seed": self.seed,
            "num_iterations": self.num_iterations,
            "simulation_time": self.simulation_time,
            "control_fps": self.control_fps,
            "cameras": list(self.cameras),
            "image_size": list(self.image_size),
            "player": self.player,
            "charge_inference_time": self.charge_inference_time,
            "inference_delays": list(self.delays),
            "contract": self.contract,
            "summary": {
                "successes": rate.successes,
                "finished": rate.trials,
                "success_rate": rate.value,
                # Rollouts of the same seeds at several delays are not independent trials.
                "wilson_95": None if self.by_delay else _bounds(rate),
                "mean_steps": self.mean_steps,
                "ended_by": dict(sorted(Counter(e.ended_by for e in self.episodes).items())),
                "failure_causes": dict(
                    Counter(e.failure_cause for e in self.episodes if e.failure_cause).most_common()
                ),
                "starved_steps": sum(episode.starved for episode in self.episodes),
                "by_delay": [
                    _at_delay(delay, episodes) for delay, episodes in self.by_delay.items()
                ],
            },
            "episodes": [episode.to_json() for episode in self.episodes],
            "run": {
                "started": self.started,
                "wall_s": self.wall_s,
                "command": list(self.command),
                "versions": dict(self.versions),
                "policy": {k: v for k, v in self.policy.items() if k != "contract"},
                "inference_ms": {
                    "count": latency.count,
                    "median": latency.median,
                    "p95": latency.p95,
                    "max": latency.max,
                },
                "error": self.error,
                "episodes": [
                    {
                        "path": self._location(episode.path),
                        "video": self._location(episode.video),
                        "wall_s": episode.wall_s,
                        "inference_ms_mean": episode.latency.mean,
                        "inference_ms_max": episode.latency.max,
                    }
                    for episode in self.episodes
                ],
            },
        }

    def _location(self, path: Path | None) -> str | None:
        if path is None:
            return None
        for local, uri in self.published.items():
            if path.is_relative_to(local):
                return f"{uri}/{path.relative_to(local).as_posix()}"
        return str(path)

    def dumps(self) -> str:
        """Return the JSON text of ``results.json``."""
        return json.dumps(self.to_json(), indent=2, default=str, ensure_ascii=False) + "\n"


def rate_of(episodes: Sequence[EpisodeResult]) -> Rate:
    """Success rate of the finished ``episodes``."""
    finished = [episode for episode in episodes if episode.finished]
    return Rate(sum(episode.success for episode in finished), len(finished))


def jump_summary(jumps: Sequence[Jump]) -> dict[str, Any]:
    """Mean and maximum jump of the commands between consecutive chunks, in mm and degrees."""
    metres = [jump.metres for jump in jumps]
    radians = [jump.radians for jump in jumps]
    return {
        "count": len(jumps),
        "mean_mm": 1000 * sum(metres) / len(metres) if jumps else None,
        "max_mm": 1000 * max(metres) if jumps else None,
        "mean_deg": math.degrees(sum(radians) / len(radians)) if jumps else None,
        "max_deg": math.degrees(max(radians)) if jumps else None,
    }


def _bounds(rate: Rate) -> list[float] | None:
    return None if rate.interval is None else list(rate.interval)


def _at_delay(delay: float, episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    rate = rate_of(episodes)
    return {
        "inference_delay": delay,
        "successes": rate.successes,
        "finished": rate.trials,
        "success_rate": rate.value,
        "wilson_95": _bounds(rate),
        "steps": sum(episode.steps for episode in episodes),
        "starved_steps": sum(episode.starved for episode in episodes),
        "chunk_jumps": jump_summary([jump for episode in episodes for jump in episode.jumps]),
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys; None values are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
