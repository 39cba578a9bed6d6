"""Open-loop replay of a LeRobot dataset: a policy's action vectors beside the recorded ones.

The policy is one that was trained on LeRobot's features as they are. Rows and video frames are read
by LeRobot itself; only those are decoded that the policy is asked about.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundation.text import printable
from getiaction.dataset_info import DatasetInfo
from getiaction.roots import local_root, require_dataset
from positronic.dataset.trained_on import dataset_name
from positronic.errors import DatasetError, SessionError
from positronic.geom import Array
from positronic.policy import ChunkPlayer, Policy

ACTION = "action"


@dataclass(frozen=True)
class VectorComparison:
    """One episode: ``times`` ``(T,)`` in seconds, and actions ``(T, n)`` in the dataset's units.

    ``hold`` is the baseline: the recorded action before the inference, until the next inference.
    ``asked`` are the times of the inferences, ``latencies`` their wall-clock seconds.
    """

    index: int
    name: str
    times: Array
    recorded: Array
    served: Array
    hold: Array
    asked: list[float]
    latencies: list[float]

    def errors(self, who: str) -> Array:
        """Mean absolute errors ``(n,)`` of ``served`` or ``hold``."""
        errors: Array = np.abs(getattr(self, who) - self.recorded).mean(axis=0)
        return errors


class LeRobotEpisodes:
    """Episodes of a LeRobot dataset; LeRobot is imported when the first one is read."""

    def __init__(self, place: str) -> None:
        """Read the metadata of the dataset at ``place``, fetched if it is elsewhere.

        Raises:
            GetiactionError: there is none, or it is damaged.
        """
        self.place = place
        self.root: Path = local_root(place)
        self.info: DatasetInfo = require_dataset(self.root)
        self._opened: Any = None

    def __len__(self) -> int:
        return self.info.total_episodes

    @property
    def dataset(self) -> Any:
        """LeRobot's own dataset."""
        if self._opened is None:
            from getiaction.data.opening import read_dataset

            self._opened = read_dataset("local/open_loop", self.root)
        return self._opened

    def rows(self, index: int) -> range:
        """Rows of an episode."""
        episode = self.dataset.meta.episodes[index]
        return range(episode["dataset_from_index"], episode["dataset_to_index"])

    def actions(self, rows: range) -> Array:
        """Recorded actions ``(T, n)``, without decoding a frame."""
        column = self.dataset.hf_dataset.select_columns(ACTION)[rows.start : rows.stop][ACTION]
        return np.stack([np.asarray(each, dtype=np.float64).ravel() for each in column])


def compare(episodes: LeRobotEpisodes, index: int, policy: Policy) -> VectorComparison:
    """Replay one episode's observations through a new session of ``policy``.

    Raises:
        DatasetError: the dataset lacks what the policy reads, or has another rate or action.
        SessionError: the policy answers with something else than ``action`` vectors.
    """
    rows = episodes.rows(index)
    task = str(episodes.dataset[rows.start]["task"])
    session = policy.new_session({"task": task})
    try:
        inputs = _inputs(session.meta, episodes)
        recorded = episodes.actions(rows)
        times = np.arange(len(rows)) / episodes.info.fps
        player = ChunkPlayer(session, episodes.info.fps)
        served: list[Array] = []
        asked: list[int] = []
        for step, row in enumerate(rows):
            count = player.inferences
            action = player.action(_Observation(episodes, inputs, row, task), float(times[step]))
            served.append(_vector(action, recorded.shape[1]))
            if player.inferences > count:
                asked.append(step)
    finally:
        session.close()
    before = np.repeat(np.maximum(np.array(asked) - 1, 0), np.diff([*asked, len(rows)]))
    return VectorComparison(
        index,
        f"episode {index}",
        times,
        recorded,
        np.stack(served),
        recorded[before],
        [float(times[step]) for step in asked],
        list(player.latencies),
    )


def names_of(meta: Mapping[str, Any], size: int) -> list[str]:
    """Names of the action's elements, as the policy's contract has them, or numbers."""
    features = (meta.get("contract") or {}).get("features") or {}
    names = (features.get(ACTION) or {}).get("names")
    if isinstance(names, list) and len(names) == size and len(set(names)) == size:
        return [printable(name, 60) for name in names]
    return [f"{ACTION}[{i}]" for i in range(size)]


def mean_errors(
    results: Sequence[VectorComparison], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Mean absolute errors over all steps, of served actions and of holding, by element."""
    weights = [len(result.times) for result in results]
    means: dict[str, dict[str, float]] = {}
    for who in ("served", "hold"):
        values = np.average([r.errors(who) for r in results], axis=0, weights=weights)
        means[who] = dict(zip(names, values.tolist(), strict=True))
    return means


def note_of(episodes: LeRobotEpisodes, meta: Mapping[str, Any]) -> str | None:
    """A warning where the policy was trained on a dataset of this name."""
    name = dataset_name(meta)
    if name is None or name != episodes.place.rstrip("/").rpartition("/")[2]:
        return None
    return (
        f"the policy was trained on the dataset {printable(name)}: unless an episode was held out,"
        " its errors say how well the policy remembers, not how well it acts on what is new"
    )


class _Observation(Mapping[str, Any]):
    """The observation of one row by LeRobot's keys; decoded only when the policy infers."""

    def __init__(
        self, episodes: LeRobotEpisodes, inputs: tuple[str, ...], row: int, task: str
    ) -> None:
        self._episodes, self._inputs, self._row, self._task = episodes, inputs, row, task
        self._sample: Mapping[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        if key == "task":
            return self._task
        if key not in self._inputs:
            raise KeyError(key)
        if self._sample is None:
            self._sample = self._episodes.dataset[self._row]
        value = np.asarray(self._sample[key])
        if value.ndim != 3:
            return value
        return np.ascontiguousarray((255 * value).round().astype(np.uint8).transpose(1, 2, 0))

    def __iter__(self) -> Iterator[str]:
        return iter((*self._inputs, "task"))

    def __len__(self) -> int:
        return len(self._inputs) + 1


def _inputs(meta: Mapping[str, Any], episodes: LeRobotEpisodes) -> tuple[str, ...]:
    """The features that the policy reads; refuses a dataset that the policy is not for."""
    contract = meta.get("contract") or {}
    features = episodes.info.features
    inputs = tuple(key for key in contract.get("inputs") or () if key != "task")
    lacking = [name for name in (*inputs, ACTION) if name not in features]
    if not inputs or lacking:
        raise DatasetError(
            f"{episodes.place} is a LeRobot dataset without {', '.join(lacking) or 'a contract'},"
            " which the policy reads; compare a policy that was trained on such a dataset, or give"
            " the raw episodes that it was trained on"
        )
    if contract.get("fps") != episodes.info.fps:
        raise DatasetError(
            f"{episodes.place} has {episodes.info.fps:g} rows per second, but the policy acts"
            f" {contract.get('fps')} times per second; compare it with data of its own rate"
        )
    return inputs


def _vector(action: Mapping[str, Any], size: int) -> Array:
    vector = np.asarray(action.get(ACTION, ()), dtype=np.float64).ravel()
    if len(vector) != size:
        raise SessionError(
            f"the policy answers with {', '.join(sorted(action))} of {len(vector)} numbers;"
            f" expected '{ACTION}' vectors of {size}, as in the dataset"
        )
    return vector
