"""Entrants of a comparison: results of one policy each, from this run or ``results.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from foundation import storage
from foundation.documents import Document, Reader, plain
from foundation.errors import StorageError
from foundation.text import printable
from positronic.cli.kinds import ROLLOUTS, found_instead
from positronic.errors import ContractError, DatasetError
from positronic.inference.results import FINISHED, FORMAT
from positronic.inference.run import RESULTS, VIDEOS
from positronic.inference.statistics import Rate

# Rollouts under different conditions cannot be compared.
CONDITIONS = {
    "env": "environment",
    "control_fps": "control rate",
    "simulation_time": "time limit",
}


# Rewards and a policy's own values may be NaN; the fields below reject it.
READER = Reader(
    DatasetError, f"give the {RESULTS} as positronic-inference sim wrote it", allow_nan=True
)

Count = Annotated[int, Field(ge=0, lt=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Ending = Literal["success", "timeout", "terminated", "server_gone", "interrupted", "error"]


class EpisodeOutcome(Document):
    """The fields of a rollout that a comparison reads."""

    seed: Seed
    success: bool
    ended_by: Ending
    steps: Count
    initial_state: str
    failure_cause: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.success != (self.ended_by == "success"):
            raise ValueError(f"expected success to be {not self.success}, by its ended_by")
        return self


class Summary(Document):
    """Summary of a run, checked against its rollouts."""

    successes: Count
    finished: Count
    success_rate: Annotated[float, Field(ge=0, le=1)] | None
    wilson_95: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=2)] | None
    mean_steps: Number | None
    ended_by: dict[Ending, Count]
    starved_steps: Count = 0
    by_delay: list[Any] = Field(default_factory=list)


class Durations(Document):
    """Durations of inference calls in milliseconds; None without calls."""

    count: Count
    median: Number | None
    p95: Number | None
    max: Number | None


class Recorded(Document):
    """Where a rollout's film is; None if there is none."""

    video: str | None = None


class Origin(Document):
    """Provenance of a run."""

    started: str
    command: list[str]
    versions: dict[str, str]
    policy: dict[str, Any]
    inference_ms: Durations
    error: str | None
    episodes: list[Recorded] = Field(default_factory=list)


class Results(Document):
    """The fields of ``results.json`` that a comparison reads."""

    env: str
    task: str
    seed: Seed
    num_iterations: Annotated[int, Field(ge=1, le=10_000_000)]
    simulation_time: Positive
    control_fps: Positive
    player: str
    charge_inference_time: bool
    inference_delays: list[Number]
    summary: Summary
    episodes: list[EpisodeOutcome]
    run: Origin

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        seeds = [episode.seed for episode in self.episodes]
        planned = range(self.seed, self.seed + self.num_iterations)
        if strange := [seed for seed in seeds if seed not in planned]:
            raise ValueError(f"expected episodes of the {_range(planned)}, found seed {strange[0]}")
        if len(self.inference_delays) > 1:
            return self  # has each seed several times; Entrant.read rejects it
        finished = [episode for episode in self.episodes if episode.ended_by in FINISHED]
        counted = sum(episode.success for episode in finished), len(finished)
        if len(set(seeds)) < len(seeds):
            raise ValueError("expected each seed once")
        if (self.summary.successes, self.summary.finished) != counted:
            raise ValueError(
                f"expected a summary of {counted[0]} successes in {counted[1]} episodes"
            )
        return self


class Version(Document):
    """The field that results of every format version have."""

    format: Annotated[int, Field(lt=2**31)]


@dataclass(frozen=True)
class Entrant:
    """One side of a comparison: a label, and the ``results.json`` of its run."""

    label: str
    results: Results
    report: str | None = None
    """Path of its own report, relative to the comparison."""

    @classmethod
    def of(cls, label: str, document: Mapping[str, Any], report: str | None = None) -> "Entrant":
        """Create an entrant from the results of a run, as JSON."""
        return cls(label, READER.validate(plain(document), Results, label), report)

    @classmethod
    def read(cls, directory: str, label: str, report: str | None = None) -> "Entrant":
        """Read the results of a finished run from its output directory, local or in S3.

        Args:
            directory: The output directory.
            label: Name of the entrant.
            report: Path of its report, relative to the comparison.

        Raises:
            StorageError: there is no ``results.json``.
            DatasetError: it has another format version, is damaged, or has several delays.
        """
        path = storage.join(directory, RESULTS)
        if not storage.exists(path):
            raise StorageError(
                f"{directory} has no {RESULTS}: give output directories of positronic-inference sim"
                f"{found_instead(directory, ROLLOUTS)}"
            )
        content = storage.read_bytes(path) if storage.is_remote(path) else READER.read(path)
        found = READER.parse_json(content, Version, str(path)).format
        if found != FORMAT:
            raise DatasetError(
                f"{path} has format {found}, expected {FORMAT}: play these rollouts again"
            )
        results = READER.parse_json(content, Results, str(path))
        if len(results.inference_delays) > 1:
            raise DatasetError(
                f"{directory} was played at {len(results.inference_delays)} delays; compare"
                " runs with one --inference_delay each"
            )
        return cls(label, results, report)

    @property
    def episodes(self) -> dict[int, EpisodeOutcome]:
        """Its rollouts by seed."""
        return {episode.seed: episode for episode in self.results.episodes}

    @property
    def films(self) -> dict[int, str]:
        """Its films beside its own report, relative to the comparison, by seed."""
        if self.report is None:
            return {}
        beside = self.report.rpartition("/")[0]
        found = zip(self.results.episodes, self.results.run.episodes, strict=False)
        return {
            episode.seed: f"{beside}/{VIDEOS}/{recorded.video.rpartition('/')[2]}"
            for episode, recorded in found
            if recorded.video is not None and recorded.video.split("/")[-2:-1] == [VIDEOS]
        }

    @property
    def finished(self) -> dict[int, EpisodeOutcome]:
        """Its finished rollouts (neither interrupted nor failed by an error), by seed."""
        return {s: e for s, e in self.episodes.items() if e.ended_by in FINISHED}

    @property
    def rate(self) -> Rate:
        """Successes among the finished rollouts."""
        return Rate(self.results.summary.successes, self.results.summary.finished)

    @property
    def description(self) -> str:
        """Short description of the policy: type, checkpoint and player."""
        results = self.results
        words = [describe(results.run.policy)]
        if results.player != "synchronous":
            words.append(f"{printable(results.player)} player")
        words += [f"delay {delay:g} s" for delay in results.inference_delays]
        if results.charge_inference_time and not results.inference_delays:
            words.append("inference time charged")
        return ", ".join(words)


def describe(policy: Mapping[str, Any]) -> str:
    """Short description of a policy by its metadata: type and checkpoint."""
    words = printable(policy.get("type", "unknown policy"))
    checkpoint = policy.get("checkpoint_id")
    return f"{words}, checkpoint {printable(checkpoint)}" if checkpoint else words


def require_comparable(entrants: Sequence[Entrant]) -> None:
    """Check that all runs have the same seeds and conditions.

    Raises:
        ContractError: the message names the difference.
    """
    first = entrants[0]
    for other in entrants[1:]:
        for field, name in CONDITIONS.items():
            a, b = (getattr(side.results, field) for side in (first, other))
            if a != b:
                raise ContractError(
                    f"{first.label} and {other.label} cannot be compared: the {name} is"
                    f" {printable(a)} and {printable(b)}"
                )
        a, b = (_planned(entrant.results) for entrant in (first, other))
        if a != b:
            raise ContractError(
                f"{first.label} and {other.label} cannot be compared seed by seed: they have"
                f" {_range(a)} and {_range(b)}"
            )
        mine, theirs = first.episodes, other.episodes
        for seed in sorted(mine.keys() & theirs.keys()):
            states = mine[seed].initial_state, theirs[seed].initial_state
            if all(states) and states[0] != states[1]:
                raise ContractError(
                    f"{first.label} and {other.label} cannot be compared: their initial states of"
                    f" seed {seed} differ; were the environments of the same version?"
                )


def _planned(results: Results) -> range:
    return range(results.seed, results.seed + results.num_iterations)


def _range(seeds: range) -> str:
    last = seeds.stop - 1
    return f"seeds {seeds.start} to {last}" if last > seeds.start else f"seed {seeds.start}"
