"""Memory of one session's policy: its queues and random numbers, copied on write."""

import copy
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import torch
from lerobot.utils.constants import ACTION

from getiaction.policies.lerobot.quirks import with_own_memory


@dataclass(frozen=True)
class Memory:
    """A shallow copy of LeRobot's policy with its own queues, and a source of random numbers."""

    twin: Any
    randomness: Any

    @classmethod
    def empty(cls, policy: Any, randomness: Any) -> Self:
        """Return the memory at the start of an episode."""
        twin = with_own_memory(policy)
        twin.reset()
        return cls(twin, randomness)

    def copy(self) -> "Memory":
        """Return an independent copy, which shares the weights."""
        twin = copy.copy(self.twin)
        for name, value in vars(self.twin).items():
            if isinstance(value, deque):
                setattr(twin, name, copy.copy(value))
            elif name == "_queues":
                setattr(twin, name, {key: copy.copy(queue) for key, queue in value.items()})
            elif hasattr(value, "reset") and not isinstance(value, torch.nn.Module):
                setattr(twin, name, copy.deepcopy(value))
        return Memory(twin, _copied(self.randomness))

    def see(self, batch: dict[str, Any]) -> None:
        """Add a preprocessed observation to the history, without running the network.

        With an action left in its queue, LeRobot's ``select_action`` does just that.
        """
        self.actions.append(None)
        self.twin.select_action(batch)

    @property
    def actions(self) -> deque[Any]:
        """The queue from which ``select_action`` takes; a new empty one for a policy without."""
        queues = getattr(self.twin, "_queues", None) or {}
        queue: deque[Any] = queues.get(ACTION, getattr(self.twin, "_action_queue", deque()))
        return queue

    def take_actions(self) -> list[Any]:
        """Remove and return all actions of the queue."""
        left = list(self.actions)
        self.actions.clear()
        return left


def _copied(randomness: Any) -> Any:
    # A generator cannot be copied like other objects.
    if isinstance(randomness, torch.Generator):
        return randomness.clone_state()
    return copy.copy(randomness)
