"""Policy sessions of a rollout: one for each episode, or one for the whole batch."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.gyms.randomness import EpisodeRandomness

_IMAGES = "observation.image"
# Made up by a policy itself, for cameras that it could have and the dataset has not.
_PADDING = "observation.images.empty_camera"


@dataclass(frozen=True)
class View:
    """A batch of observations, and for each lane (environment) that acts on it, its row there."""

    observation: dict[str, Any]
    rows: dict[int, int]


class Actors:
    """The policy, as the episodes of one batch ask it.

    Args:
        policy: What to ask.
        seeds: The episodes' seeds.
        gym: Its name, for messages.
        devices: GPUs whose random streams belong to the episodes.
        batched: One session for all episodes.
    """

    def __init__(
        self,
        policy: Any,
        seeds: Sequence[int],
        gym: str,
        devices: tuple[int, ...],
        *,
        batched: bool,
    ) -> None:
        self.batched = batched
        self._gym = gym
        self._wanted = _inputs(policy)
        self._randomness = [
            EpisodeRandomness(seed, devices) for seed in (seeds[:1] if batched else seeds)
        ]
        self._sessions = []
        for randomness in self._randomness:
            with randomness.active():
                session = policy.session() if hasattr(policy, "session") else copy.deepcopy(policy)
                session.reset()
            self._sessions.append(session)

    def act(self, view: View) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield each lane of the view with its action (A,)."""
        self._check(view.observation)
        actor = 0 if self.batched else next(iter(view.rows))
        with self._randomness[actor].active():
            answer = self._sessions[actor].select_action(view.observation)
        actions = _array(answer)
        yield from ((lane, actions[row]) for lane, row in view.rows.items())

    def _check(self, observation: dict[str, Any]) -> None:
        """Refuse at once what a policy would stumble over, or worse, not notice."""
        if not self._wanted:
            return
        missing = [key for key in self._wanted if key not in observation]
        if missing:
            given = [key for key in observation if key.startswith("observation.")]
            free = [key for key in given if key not in self._wanted]
            pairs = ((a, b) for a in free for b in missing if _alike(a, b))
            example = next(pairs, (free[0] if free else "observation.…", missing[0]))
            raise GetiactionError(
                f"the policy was trained on {', '.join(missing)}, which {self._gym} does not give "
                f"(it gives {', '.join(given)}); if it is the same thing by another name, make the "
                f"gym with rename_map={{{example[0]!r}: {example[1]!r}}}"
            )
        for key, shape in self._wanted.items():
            found = tuple(observation[key].shape[1:])
            # Some policies resize pictures; nothing resizes a vector.
            if not key.startswith(_IMAGES) and found != shape:
                raise GetiactionError(
                    f"the policy was trained on {key} of shape {shape}, {self._gym} gives {found}"
                )
        # Checked once: an environment does not change its mind.
        self._wanted = {}


def _alike(a: str, b: str) -> bool:
    return a.startswith(_IMAGES) == b.startswith(_IMAGES)


def _inputs(policy: Any) -> dict[str, tuple[int, ...]]:
    """What a LeRobot policy needs to see, by the environment's names, with shapes."""
    features = getattr(getattr(policy, "config", None), "input_features", None) or {}
    renamed: dict[str, str] = {}
    for step in getattr(getattr(policy, "preprocessor", None), "steps", ()):
        # The policy's own processor renames what it is given.
        renamed |= {new: old for old, new in (getattr(step, "rename_map", None) or {}).items()}
    return {
        renamed.get(key, key): tuple(feature.shape)
        for key, feature in features.items()
        if key.startswith("observation.") and not key.startswith(_PADDING)
    }


def _array(action: Any) -> NDArray[Any]:
    if isinstance(action, torch.Tensor):
        action = action.detach().cpu()
        if action.dtype == torch.bfloat16:  # NumPy has no such type
            action = action.float()
        action = action.numpy()
    array: NDArray[Any] = np.asarray(action)
    if array.ndim < 1:
        raise GetiactionError(
            f"select_action returned a number; expected actions with a batch dimension, got "
            f"shape {array.shape}"
        )
    return array


def devices_of(policy: Any) -> tuple[int, ...]:
    """Indices of the GPUs whose random numbers a policy may draw."""
    if not isinstance(policy, torch.nn.Module):
        # One of torch's few functions without types.
        started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return (torch.cuda.current_device(),) if started else ()
    found = {p.device.index for p in policy.parameters() if p.device.type == "cuda"}
    return tuple(sorted(index for index in found if index is not None))
