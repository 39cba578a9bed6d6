"""Conversion of environment observations to the keys of LeRobot's datasets.

Fast to import, for environment processes: torch is imported only in the policy's process.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from getiaction.errors import GetiactionError

if TYPE_CHECKING:
    from torch import Tensor

# Keys known to LeRobot's preprocess_observation.
_KNOWN = ("pixels", "environment_state", "agent_pos", "robot_state")
_PREFIX = "observation."


def lerobot_observation(
    raw: Any, observation_keys: Mapping[str, str] | None = None
) -> "dict[str, Tensor]":
    """Rename and convert a batch of raw observations as LeRobot's evaluation does.

    ``pixels`` become ``observation.image`` (``observation.images.<camera>`` if there are several),
    ``agent_pos`` ``observation.state``, ``environment_state`` ``observation.environment_state``; a
    key that begins with ``observation.`` is unchanged. A single array is treated as ``pixels``
    (uint8, (B, H, W, C)) or ``agent_pos``.

    Args:
        raw: The environment's observation, each array with a leading batch dimension.
        observation_keys: The raw keys to use and their LeRobot names, instead of the rule above;
            ``/`` separates keys of nested dicts: ``{"pixels/top": "observation.images.top"}``.

    Returns:
        Images float32 (B, C, H, W) in [0, 1]; everything else float32 (B, n).

    Raises:
        GetiactionError: a key has no LeRobot name, or is missing.
    """
    if not isinstance(raw, Mapping):
        raw = {"pixels" if np.ndim(raw) == 4 else "agent_pos": np.asarray(raw)}
    if observation_keys is not None:
        return {name: _tensor(_find(raw, key)) for key, name in observation_keys.items()}
    unknown = [key for key in raw if key not in _KNOWN and not key.startswith(_PREFIX)]
    if unknown:
        raise GetiactionError(
            f"LeRobot has no name for {', '.join(unknown)} of this environment: name them "
            "with observation_keys={'raw key': 'observation.…'}, or write a Gym with its "
            "own to_observation"
        )
    from lerobot.envs.utils import preprocess_observation

    own = {key: value for key, value in raw.items() if key in _KNOWN}
    converted: dict[str, Tensor] = preprocess_observation(own)
    return converted | {
        key: _tensor(value) for key, value in raw.items() if key.startswith(_PREFIX)
    }


def _find(raw: Mapping[str, Any], key: str) -> Any:
    value: Any = raw
    for part in (key,) if key in raw else key.split("/"):
        if not isinstance(value, Mapping) or part not in value:
            raise GetiactionError(
                f"the environment has no {key!r}, which is in observation_keys; "
                f"it has {', '.join(raw)}"
            )
        value = value[part]
    return value


def _tensor(value: Any) -> "Tensor":
    import torch

    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim == 4:
        return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255
    if array.ndim == 1:
        array = array[:, np.newaxis]
    return torch.from_numpy(array.astype(np.float32))


def batch_of_one(raw: Any) -> Any:
    """Give every array of one environment's observation a leading dimension of 1."""
    if isinstance(raw, Mapping):
        return {key: batch_of_one(value) for key, value in raw.items()}
    return np.asarray(raw)[np.newaxis]
