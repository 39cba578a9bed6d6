"""Delta timestamps: frames of a policy's sample, in seconds relative to the current frame.

They follow from the policy's config by LeRobot's rule. Lists given by the user are compared with
these: one that is valid for the dataset but not for the policy would silently train on the wrong
frames.
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
    """Return the delta timestamps in seconds that ``config`` needs, or None.

    Args:
        config: The policy's LeRobot config.
        meta: LeRobot's metadata of the dataset: its feature names and frames per second.
    """
    needed: DeltaTimestamps | None = resolve_delta_timestamps(config, meta)
    return needed


def require_deltas(given: DeltaTimestamps, needed: DeltaTimestamps | None, fps: float) -> None:
    """Check that given delta timestamps are those that the policy needs.

    Args:
        given: Seconds relative to the current frame, by key of the dataset.
        needed: The same from the policy's config, see :func:`deltas_of`.
        fps: Frames per second of the dataset.

    Raises:
        GetiactionError: they differ; the message has the first such key and both lists.
    """
    needed = needed or {}
    for key, wanted in needed.items():
        if key not in given:
            raise GetiactionError(
                f"delta_timestamps lack {key!r}, of which the policy needs {_listed(wanted)} at "
                f"{fps:g} fps; leave delta_timestamps out to use the policy's"
            )
        if not _same(given[key], wanted):
            raise GetiactionError(
                f"delta_timestamps of {key!r} are {_listed(given[key])}, but the policy needs "
                f"{_listed(wanted)} at {fps:g} fps; leave delta_timestamps out to use the policy's"
            )
    for key in given:
        if key not in needed:
            raise GetiactionError(
                f"delta_timestamps have {key!r}, of which the policy uses only the current frame; "
                "leave delta_timestamps out to use the policy's"
            )


def set_deltas(dataset: LeRobotDataset, config: PreTrainedConfig) -> None:
    """Set the delta timestamps of the policy ``config``, to use ``dataset`` in your own DataLoader.

    If the dataset already has delta timestamps, they are checked instead.

    Raises:
        GetiactionError: the dataset's delta timestamps differ from the policy's.
    """
    needed = deltas_of(config, dataset.meta)
    if dataset.delta_timestamps:
        require_deltas(dataset.delta_timestamps, needed, dataset.meta.fps)
        return
    dataset.delta_timestamps = needed
    table, positions = dataset.hf_dataset, dataset.absolute_to_relative_idx
    dataset.reader = None
    # Keep the loaded table; only the reader depends on the deltas.
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
