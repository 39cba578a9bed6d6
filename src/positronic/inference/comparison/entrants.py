"""What is compared: the results of one policy each, from a run just played or from its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from positronic import storage
from positronic.errors import ContractError, DatasetError, StorageError
from positronic.inference.results import FINISHED, FORMAT
from positronic.inference.run import RESULTS
from positronic.inference.statistics import Rate

# Rollouts under other conditions say nothing about which policy is better.
CONDITIONS = {
    "env": "environment",
    "control_fps": "control rate",
    "simulation_time": "time limit",
}


@dataclass(frozen=True)
class Entrant:
    """One side of a comparison; ``document`` is what a run's ``results.json`` holds."""

    label: str
    document: Mapping[str, Any]
    report: str | None = None
    """Where its own report is, relative to the comparison."""

    @classmethod
    def read(cls, directory: str, label: str) -> "Entrant":
        """Read the results of a finished run from its output directory, local or in S3.

        Raises:
            StorageError: there are none.
            DatasetError: they are of another version, broken, or of several delays at once.
        """
        place = storage.join(directory, RESULTS)
        if not storage.exists(place):
            raise StorageError(
                f"{directory} has no {RESULTS}: give output directories of positronic-inference sim"
            )
        try:
            document = json.loads(storage.read_bytes(place))
            found = document["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{place} is not the {RESULTS} of a run") from error
        if found != FORMAT:
            raise DatasetError(
                f"{place} has format {found}, expected {FORMAT}: play these rollouts again"
            )
        if len(document["inference_delays"]) > 1:
            raise DatasetError(
                f"{directory} was played at {len(document['inference_delays'])} delays; compare"
                " runs with one --inference_delay each"
            )
        return cls(label, document)

    @property
    def episodes(self) -> dict[int, Mapping[str, Any]]:
        """Its rollouts by seed."""
        return {episode["seed"]: episode for episode in self.document["episodes"]}

    @property
    def finished(self) -> dict[int, Mapping[str, Any]]:
        """Its rollouts in which the policy had its full chance, by seed."""
        return {s: e for s, e in self.episodes.items() if e["ended_by"] in FINISHED}

    @property
    def rate(self) -> Rate:
        """Successes among the finished rollouts."""
        summary = self.document["summary"]
        return Rate(summary["successes"], summary["finished"])

    @property
    def description(self) -> str:
        """The policy in a few words: its type, checkpoint and player."""
        policy = self.document["run"]["policy"]
        words = [str(policy.get("type", "unknown policy"))]
        if policy.get("checkpoint_id"):
            words.append(f"checkpoint {policy['checkpoint_id']}")
        if self.document["player"] != "synchronous":
            words.append(f"{self.document['player']} player")
        words += [f"delay {delay:g} s" for delay in self.document["inference_delays"]]
        if self.document["charge_inference_time"] and not self.document["inference_delays"]:
            words.append("inference time charged")
        return ", ".join(words)


def require_comparable(entrants: Sequence[Entrant]) -> None:
    """Refuse runs that are not of the same seeds under the same conditions.

    Raises:
        ContractError: names what differs, on both sides.
    """
    first = entrants[0]
    for other in entrants[1:]:
        for field, name in CONDITIONS.items():
            a, b = first.document[field], other.document[field]
            if a != b:
                raise ContractError(
                    f"{first.label} and {other.label} cannot be compared: the {name} is {a} here"
                    f" and {b} there"
                )
        a, b = (_planned(entrant.document) for entrant in (first, other))
        if a != b:
            raise ContractError(
                f"{first.label} and {other.label} cannot be compared seed by seed: the seeds are"
                f" {_range(a)} here and {_range(b)} there"
            )
        mine, theirs = first.episodes, other.episodes
        for seed in sorted(mine.keys() & theirs.keys()):
            states = mine[seed]["initial_state"], theirs[seed]["initial_state"]
            if all(states) and states[0] != states[1]:
                raise ContractError(
                    f"{first.label} and {other.label} cannot be compared: seed {seed} begins"
                    " otherwise here than there; were the environments of the same version?"
                )


def _planned(document: Mapping[str, Any]) -> range:
    return range(document["seed"], document["seed"] + document["num_iterations"])


def _range(seeds: range) -> str:
    return f"{seeds.start} to {seeds.stop - 1}" if len(seeds) > 1 else str(seeds.start)
