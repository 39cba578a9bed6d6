"""Delta timestamps: the frames, in seconds from the present one, that a policy's sample spans.

The policy decides them, by LeRobot's rule. Lists that a person gives are compared with it: one that
fits the dataset's tolerance, but not the policy, would train on the wrong frames in silence.
"""

from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.factory import resolve_delta_timestamps

from getiaction.errors import GetiactionError

type DeltaTimestamps = dict[str, list[float]]

# LeRobot's own tolerance for times of frames, in seconds.
TOLERANCE_S = 1e-4
SHOWN = 4


def deltas_of(config: PreTrainedConfig, meta: Any) -> DeltaTimestamps | None:
    """Return the delta timestamps, in seconds, that ``config`` needs of a dataset; None for none.

    Args:
        config: The policy's LeRobot config.
        meta: LeRobot's metadata of the dataset: its feature names and frames a second.
    """
    needed: DeltaTimestamps | None = resolve_delta_timestamps(config, meta)
    return needed


def require_deltas(given: DeltaTimestamps, needed: DeltaTimestamps | None, fps: float) -> None:
    """Compare delta timestamps that someone gave with those that the policy needs.

    Args:
        given: Seconds from the present frame, by key of the dataset.
        needed: The same by the policy's config, see :func:`deltas_of`.
        fps: Frames a second of the dataset.

    Raises:
        GetiactionError: they differ; names the first such key and both lists.
    """
    needed = needed or {}
    for key, wanted in needed.items():
        if key not in given:
            raise GetiactionError(
                f"delta_timestamps lack {key!r}, of which the policy needs {_listed(wanted)} at "
                f"{fps:g} fps; leave delta_timestamps out, and they follow from the policy"
            )
        if not _same(given[key], wanted):
            raise GetiactionError(
                f"delta_timestamps of {key!r} are {_listed(given[key])}, but the policy needs "
                f"{_listed(wanted)} at {fps:g} fps; leave delta_timestamps out, and they follow "
                "from the policy"
            )
    for key in given:
        if key not in needed:
            raise GetiactionError(
                f"delta_timestamps name {key!r}, of which the policy takes the present frame "
                "only; leave delta_timestamps out, and they follow from the policy"
            )


def set_deltas(dataset: LeRobotDataset, config: PreTrainedConfig) -> None:
    """Make ``dataset`` give what the policy ``config`` needs, for use in a DataLoader of one's own.

    A dataset without delta timestamps gets the policy's; one with some is checked.

    Raises:
        GetiactionError: the dataset has others than the policy needs.
    """
    needed = deltas_of(config, dataset.meta)
    if dataset.delta_timestamps:
        require_deltas(dataset.delta_timestamps, needed, dataset.meta.fps)
        return
    dataset.delta_timestamps = needed
    table, positions = dataset.hf_dataset, dataset.absolute_to_relative_idx
    dataset.reader = None
    # The table was read already; only the reader knows about deltas.
    reader: Any = dataset._ensure_reader()
    reader.hf_dataset, reader._absolute_to_relative_idx = table, positions


def _same(given: list[float], wanted: list[float]) -> bool:
    return len(given) == len(wanted) and all(
        abs(a - b) <= TOLERANCE_S for a, b in zip(given, wanted, strict=True)
    )


def _listed(seconds: list[float]) -> str:
    shown = [f"{value:.4g}" for value in seconds]
    if len(shown) <= SHOWN + 1:
        return f"[{', '.join(shown)}]"
    return f"[{', '.join(shown[: SHOWN - 1])}, ..., {shown[-1]}] ({len(shown)} values)"
