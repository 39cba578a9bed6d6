"""Inference of LeRobot's policies: copies with their own action queues, and action chunks."""

import copy
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from lerobot.utils.constants import ACTION
from torch import Tensor

if TYPE_CHECKING:
    # Which stands on Lightning, that no server needs.
    from getiaction.policies.base import Batch

# Its plans come as (T, B, A).
TIME_FIRST = frozenset({"tdmpc"})


def with_own_memory(policy: Any) -> Any:
    """Return a shallow copy whose ``reset`` leaves the original's memory alone."""
    twin = copy.copy(policy)
    for name, value in vars(policy).items():
        # E.g. ACT's temporal ensembler, a plain object that reset() empties in place.
        if hasattr(value, "reset") and not isinstance(value, torch.nn.Module):
            setattr(twin, name, copy.copy(value))
    return twin


def plan(policy: Any, batch: "Batch") -> Tensor:
    """Return the normalised actions (B, T, A) that ``policy`` plans from ``batch``.

    Policies that look back (diffusion, vqbet, tdmpc) read the past from queues that only their
    ``select_action`` fills. A batch of a dataset brings its own past along; a single observation is
    taken as the next one of the episode that the policy remembers. Neither is remembered.

    Args:
        policy: LeRobot's policy.
        batch: Preprocessed, of single observations, or of a dataset's samples with a time axis.
    """
    queues: dict[str, Any] = getattr(policy, "_queues", None) or {}
    if not set(queues) - {ACTION}:
        actions: Tensor = policy.predict_action_chunk(batch)
        return actions
    twin = with_own_memory(policy)
    if _has_time_axis(policy.config, batch):
        twin.reset()
        *past, present = _moments(policy.config, batch)
    else:
        twin._queues = {key: deque(queue, queue.maxlen) for key, queue in queues.items()}
        past, present = [], batch
    for moment in past:
        # With an action left in its queue, a policy remembers what it sees and plans nothing.
        twin._queues[ACTION] = deque([None])
        twin.select_action(moment)
    twin._queues[ACTION] = deque(maxlen=queues[ACTION].maxlen)
    return _planned(twin, present)


def _planned(policy: Any, batch: "Batch") -> Tensor:
    """Let ``select_action`` plan, and listen."""
    heard: list[Tensor] = []
    predict = policy.predict_action_chunk

    def listen(*args: Any, **kwargs: Any) -> Tensor:
        heard.append(predict(*args, **kwargs))
        return heard[-1]

    policy.predict_action_chunk = listen
    policy.select_action(batch)
    (actions,) = heard
    return actions.transpose(0, 1) if policy.config.type in TIME_FIRST else actions


def _has_time_axis(config: Any, batch: "Batch") -> bool:
    return any(
        batch[key].ndim > len(feature.shape) + 1
        for key, feature in config.input_features.items()
        if key in batch
    )


def _moments(config: Any, batch: "Batch") -> Iterator["Batch"]:
    """Yield what was observed up to the present; a dataset's samples may show the future too."""
    for at, delta in enumerate(config.observation_delta_indices):
        if delta <= 0:
            yield {
                key: value[:, at] if key in config.input_features else value
                for key, value in batch.items()
                if not key.startswith(ACTION)
            }
