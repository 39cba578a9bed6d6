"""An episode with a loaded checkpoint, checked at its border."""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import CodecError
from positronic.policy.base import Action
from positronic.vendors.lerobot.acting import Observation, Prediction, Request

if TYPE_CHECKING:
    from positronic.vendors.lerobot.policy import LeRobotPolicy


class LeRobotSession:
    """One episode with a `LeRobotPolicy`.

    ``prepare`` changes nothing that lasts: a session whose request is refused, or never answered,
    is as it was. What happened is remembered by ``finish``.
    """

    def __init__(self, policy: "LeRobotPolicy", context: Mapping[str, Any], seed: int) -> None:
        """Begin; ``seed`` is that of the random numbers unless an observation has one."""
        self._policy = policy
        self._context = dict(context)
        self._seed = seed
        self._memory: Any = None
        self._actions: deque[NDArray[np.float32]] = deque()
        self._unseen: deque[Observation] = deque(maxlen=policy.n_obs_steps - 1)
        self._present: Observation = {}
        self._before: Observation | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """The policy's."""
        return self._policy.meta

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Answer one observation.

        Raises:
            CodecError: The observation does not fit; names the key and what was expected.
        """
        request = self.prepare(obs)
        return self.finish(None if request is None else self._policy.predict([request])[0])

    def prepare(self, obs: Mapping[str, Any]) -> Request | None:
        """See `positronic.offboard.models.model.ModelSession.prepare`.

        Args:
            obs: Raw signals; ``task`` where the policy reads words; and in the first one of an
                episode ``seed``, if the numbers that the policy draws are to be the same again.
        """
        if self._context:
            obs = {**self._context, **obs}
        observation = self._policy.encode(obs, self._before)
        task = self._task(obs)
        seed = self._seed_of(obs)
        self._present = observation
        if self._actions:
            return None
        return Request(observation, task, tuple(self._unseen), self._memory, seed)

    def finish(self, prediction: Prediction | None) -> list[Action]:
        """See `positronic.offboard.models.model.ModelSession.finish`."""
        if prediction is None:
            actions = self._policy.decode(self._actions[0][np.newaxis])
            self._actions.popleft()
            # A simulator may render the next picture into the same array.
            self._unseen.append({key: value.copy() for key, value in self._present.items()})
            self._before = self._present
            return actions
        self._policy.require_possible(prediction.actions)
        if not self._policy.every_step:
            actions = self._policy.decode(prediction.actions)
            self._before = self._present
            return actions
        now, later = prediction.actions[:1], prediction.actions[1:]
        actions = self._policy.decode(now)
        self._before = self._present
        self._memory = prediction.memory
        self._actions.extend(later)
        self._unseen.clear()
        return actions

    def close(self) -> None:
        """Nothing to give back."""

    def _task(self, obs: Mapping[str, Any]) -> str:
        if not self._policy.takes_task:
            return ""
        task = obs.get("task")
        if not isinstance(task, str):
            got = "nothing" if task is None else type(task).__name__
            raise CodecError(f"'task' is {got}, expected words: this policy is told what to do")
        return task

    def _seed_of(self, obs: Mapping[str, Any]) -> int:
        seed = obs.get("seed", self._seed)
        whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        if not whole or not 0 <= seed < 2**63:
            raise CodecError(f"'seed' is {seed!r:.40}, expected a whole number from 0 to 2**63 - 1")
        return int(seed)
