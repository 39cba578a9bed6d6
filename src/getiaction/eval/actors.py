"""Policy sessions of a rollout: one per episode, or one for the whole batch."""

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
# Placeholders added by a policy for cameras that the dataset does not have.
_PADDING = "observation.images.empty_camera"


@dataclass(frozen=True)
class View:
    """A batch of observations, and the row of each lane (environment) in it."""

    observation: dict[str, Any]
    rows: dict[int, int]


class Actors:
    """Sessions of the policy for the episodes of one batch.

    Args:
        policy: The policy.
        seeds: The episodes' seeds.
        gym: The gym's name, for messages.
        devices: GPUs whose random streams are kept per episode.
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
        """Check that observations match the policy's input features."""
        if not self._wanted:
            return
        missing = [key for key in self._wanted if key not in observation]
        if missing:
            given = [key for key in observation if key.startswith("observation.")]
            free = [key for key in given if key not in self._wanted]
            pairs = ((a, b) for a in free for b in missing if _alike(a, b))
            example = next(pairs, (free[0] if free else "observation.…", missing[0]))
            raise GetiactionError(
                f"the policy was trained on {', '.join(missing)}, which {self._gym} does not have "
                f"(it has {', '.join(given)}); if only the name differs, create the "
                f"gym with rename_map={{{example[0]!r}: {example[1]!r}}}"
            )
        for key, shape in self._wanted.items():
            found = tuple(observation[key].shape[1:])
            # Some policies resize images; vectors must match.
            if not key.startswith(_IMAGES) and found != shape:
                raise GetiactionError(
                    f"the policy was trained on {key} of shape {shape}, {self._gym} has {found}"
                )
        # Checked once: an environment's observation space is constant.
        self._wanted = {}


def _alike(a: str, b: str) -> bool:
    return a.startswith(_IMAGES) == b.startswith(_IMAGES)


def _inputs(policy: Any) -> dict[str, tuple[int, ...]]:
    """Input features of a LeRobot policy, by the environment's names, with shapes."""
    features = getattr(getattr(policy, "config", None), "input_features", None) or {}
    renamed: dict[str, str] = {}
    for step in getattr(getattr(policy, "preprocessor", None), "steps", ()):
        # The policy's own preprocessor renames inputs.
        renamed |= {new: old for old, new in (getattr(step, "rename_map", None) or {}).items()}
    return {
        renamed.get(key, key): tuple(feature.shape)
        for key, feature in features.items()
        if key.startswith("observation.") and not key.startswith(_PADDING)
    }


def _array(action: Any) -> NDArray[Any]:
    if isinstance(action, torch.Tensor):
        action = action.detach().cpu()
        if action.dtype == torch.bfloat16:  # NumPy has no bfloat16
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
    """Indices of the GPUs whose random streams a policy may use."""
    if not isinstance(policy, torch.nn.Module):
        # Not typed by torch.
        started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return (torch.cuda.current_device(),) if started else ()
    found = {p.device.index for p in policy.parameters() if p.device.type == "cuda"}
    return tuple(sorted(index for index in found if index is not None))
