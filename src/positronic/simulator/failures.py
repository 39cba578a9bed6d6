"""Causes of failure, by what the simulator saw of the object that a task is about."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from positronic.geom import quat_to_matrix
from positronic.simulator.robot import PREFIX
from positronic.simulator.tasks import SceneState, Task, is_still

Array = NDArray[np.float64]
Cause = Literal["never_grasped", "dropped", "missed", "toppled"]

# An object that is let go so near to its place was aimed at it, however it then fell.
_NEAR_ASIDE_M, _NEAR_ABOVE_M = 0.08, 0.05
_FALL_M = 0.01  # what is set down sinks by less
_MAX_TILT_RAD = math.pi / 4


class FailureWatch:
    """Follows an episode and says why it fails, should it end now.

    An object is carried while both fingers touch it and the table does not. ``never_grasped``: it
    was never carried. ``dropped``: it fell on the way to its place. ``missed``: it was let go, but
    not at its place. ``toppled``: it stood at its place and came off, or the place itself has
    fallen over.
    """

    def __init__(self, model: Any, data: Any, task: Task) -> None:
        """Follow the first of the task's objects in ``data``."""
        self._model, self._data, self._task = model, data, task
        self._body = int(model.body(task.objects[0]).id)
        self._fingers = [
            {i for i in range(model.nbody) if model.body(i).name.startswith(f"{PREFIX}{side}_")}
            for side in ("left", "right")
        ]
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._carried = self._stood = False
        self._poses: Array = np.zeros((0, 7))
        self._last: Array | None = None  # the poses when it was last carried
        self._fallen = False

    def update(self, state: SceneState) -> None:
        """Take in the state after one control step."""
        self._poses = state.poses
        upright = quat_to_matrix(state.poses[1, 3:])[2, 2]
        self._fallen = bool(upright < math.cos(_MAX_TILT_RAD))
        touching = self._touching()
        self._carried = 0 not in touching and all(touching & side for side in self._fingers)
        if self._carried:
            self._last, self._stood = state.poses, False
        elif self._task.is_placed(state.poses) and is_still(state):
            self._stood = True

    @property
    def cause(self) -> Cause | None:
        """The cause; None while nothing has gone wrong but the time."""
        if self._fallen:
            return "toppled"
        if self._carried:
            return None
        if self._stood:
            return None if self._task.is_placed(self._poses) else "toppled"
        if self._last is None:
            return "never_grasped"
        x, y, above = self._last[0, :3] - self._task.place(self._last)
        near = math.hypot(x, y) < _NEAR_ASIDE_M and above < _NEAR_ABOVE_M
        fell = self._last[0, 2] - self._poses[0, 2] > _FALL_M
        return "dropped" if fell and not near else "missed"

    def _touching(self) -> set[int]:
        """Bodies that touch the object; 0 is the table."""
        pairs = self._model.geom_bodyid[self._data.contact.geom]
        mine = pairs[(pairs == self._body).any(axis=1)]
        return set(mine.ravel().tolist()) - {self._body}
