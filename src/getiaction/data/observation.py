"""Observation: a batch with named fields instead of LeRobot's keys."""

import dataclasses
from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_IMAGES, OBS_STATE, REWARD
from torch import Tensor

SUCCESS = "next.success"
# Fields that correspond to one LeRobot key.
KEYS = {
    "action": ACTION,
    "task": "task",
    "state": OBS_STATE,
    "next_reward": REWARD,
    "next_success": SUCCESS,
    "episode_index": "episode_index",
    "frame_index": "frame_index",
    "index": "index",
    "task_index": "task_index",
    "timestamp": "timestamp",
}


@dataclass(frozen=True)
class Observation:
    """A batch of observations, in a dataset also with actions, rewards and success.

    Values are tensors or arrays with a leading batch dimension B, lists of B strings, or None if
    absent.

    Args:
        action: (B, A), or (B, T, A) for a chunk.
        task: B strings.
        state: (B, n), or (B, T, n) with a history.
        images: By camera, (B, 3, H, W); one camera without a name is the value itself.
        next_reward: (B,).
        next_success: (B,).
        episode_index: (B,), as the four below.
        frame_index: Index within the episode.
        index: Index within the dataset.
        task_index: Index of the task in the dataset.
        timestamp: Seconds from the start of the episode.
        info: Info from the environment, by name.
        extra: Values without a field here, by LeRobot's key.
    """

    action: Any = None
    task: Any = None
    state: Any = None
    images: Any = None
    next_reward: Any = None
    next_success: Any = None
    episode_index: Any = None
    frame_index: Any = None
    index: Any = None
    task_index: Any = None
    timestamp: Any = None
    info: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None

    @classmethod
    def from_batch(cls, batch: Mapping[str, Any]) -> Self:
        """Create from a batch with LeRobot's keys."""
        fields = {field: batch[key] for field, key in KEYS.items() if key in batch}
        images = {
            key.removeprefix(f"{OBS_IMAGES}."): value
            for key, value in batch.items()
            if key.startswith(f"{OBS_IMAGES}.") and not key.endswith("_is_pad")
        }
        named = {*KEYS.values(), *(f"{OBS_IMAGES}.{camera}" for camera in images), "info"}
        if images:
            fields["images"] = images
        elif OBS_IMAGE in batch:
            fields["images"] = batch[OBS_IMAGE]
            named.add(OBS_IMAGE)
        extra = {key: value for key, value in batch.items() if key not in named}
        return cls(**fields, info=batch.get("info"), extra=extra or None)

    def to_batch(self) -> dict[str, Any]:
        """Return the present values by LeRobot's keys, as input of a policy."""
        batch = {key: getattr(self, field) for field, key in KEYS.items()}
        if isinstance(self.images, Mapping):
            batch |= {f"{OBS_IMAGES}.{camera}": value for camera, value in self.images.items()}
        else:
            batch[OBS_IMAGE] = self.images
        batch |= {"info": self.info, **(self.extra or {})}
        return {key: value for key, value in batch.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create from a dict by field; dotted names such as ``images.<camera>`` become dicts.

        Raises:
            TypeError: a name is not a field.
        """
        fields: dict[str, Any] = {}
        for name, value in values.items():
            field, dot, inner = name.partition(".")
            if dot:
                fields.setdefault(field, {})[inner] = value
            else:
                fields[name] = value
        return cls(**fields)

    def to_dict(self, flatten: bool = True) -> dict[str, Any]:
        """Return the present values by field; with ``flatten``, dicts become dotted names."""
        values: dict[str, Any] = {}
        for field, value in self.items():
            if flatten and isinstance(value, Mapping):
                values |= {f"{field}.{name}": inner for name, inner in value.items()}
            else:
                values[field] = value
        return values

    def _fields(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def keys(self) -> KeysView[str]:
        """Return the names of the present fields."""
        return self._fields().keys()

    def values(self) -> ValuesView[Any]:
        """Return the present values."""
        return self._fields().values()

    def items(self) -> ItemsView[str, Any]:
        """Return names and values of the present fields."""
        return self._fields().items()

    def __getitem__(self, name: str) -> Any:
        return self._fields()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fields()

    @property
    def batch_size(self) -> int:
        """The batch size B.

        Raises:
            ValueError: no value has a batch dimension.
        """
        for value in self.to_dict().values():
            if isinstance(value, (Tensor, np.ndarray, list)) and np.ndim(value):
                return len(value)
        raise ValueError("the observation is empty, so it has no batch size")

    def to(self, device: Any) -> Self:
        """Return a copy with its tensors on ``device``."""
        return self._mapped(lambda value: value.to(device) if torch.is_tensor(value) else value)

    def to_numpy(self) -> Self:
        """Return a copy with tensors converted to arrays."""
        return self._mapped(
            lambda value: value.detach().cpu().numpy() if torch.is_tensor(value) else value
        )

    def to_torch(self, device: Any = "cpu") -> Self:
        """Return a copy with arrays converted to tensors."""
        return self._mapped(
            lambda value: torch.as_tensor(value) if isinstance(value, np.ndarray) else value
        ).to(device)

    def _mapped(self, change: Callable[[Any], Any]) -> Self:
        def deep(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: deep(inner) for name, inner in value.items()}
            return change(value)

        return dataclasses.replace(self, **{name: deep(value) for name, value in self.items()})
