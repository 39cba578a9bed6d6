"""Writes rollouts down as raw episodes, in the same layout as demonstrations have."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from positronic.geom import pose_from_wire
from positronic.inference.results import flatten

if TYPE_CHECKING:
    from positronic.dataset import DatasetWriter

SIM_STATE = "sim_state.mjSTATE_INTEGRATION"


class EpisodeRecorder:
    """One rollout on its way to the disk; nothing is visible there before :meth:`publish`."""

    def __init__(self, writer: "DatasetWriter", fps: int) -> None:
        self._episode = writer.new_episode()
        self._fps = fps
        self._observed = -1

    def observe(self, step: int, obs: Mapping[str, Any], sim_state: NDArray[np.float64]) -> None:
        """Record the observation before the command of ``step``; a second time does nothing."""
        if step <= self._observed:
            return
        self._observed = step
        ts = self._time(step)
        for name, value in obs.items():
            self._episode.append(name, value, ts)
        self._episode.append(SIM_STATE, sim_state, ts)

    def command(self, step: int, robot_command: Mapping[str, Any], target_grip: float) -> None:
        """Record the command given on the observation of ``step``, as it came over the wire."""
        ts = self._time(step)
        if robot_command["type"] == "cartesian_pos":
            pose = pose_from_wire(np.asarray(robot_command["pose"], dtype=np.float64))
            self._episode.append("robot_commands.pose", pose, ts)
        else:
            joints = np.asarray(robot_command["positions"], dtype=np.float64)
            self._episode.append("robot_commands.joints", joints, ts)
        self._episode.append("target_grip", float(target_grip), ts)

    def publish(self, statics: Mapping[str, Any]) -> Path:
        """Finish the episode and return its directory."""
        for name, value in statics.items():
            self._episode.set_static(name, value)
        return self._episode.publish()

    def abort(self) -> None:
        """Throw the recording away."""
        self._episode.abort()

    def _time(self, step: int) -> int:
        return (step * 10**9) // self._fps


def storable(value: Any) -> Any:
    """Return ``value`` as a static value may be: what is None is left out, the unknown is text."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): storable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [storable(v) for v in value if v is not None]
    return value if isinstance(value, str | int | float | bool | bytes) else str(value)


def policy_statics(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten what a policy says of itself into statics.

    What a server says goes under ``inference.policy.server.``, as public Positronic does; a server
    is known by telling its host.
    """
    served = "host" in meta
    prefix = "inference.policy.server." if served else "inference.policy."
    statics = {name: storable(value) for name, value in flatten(meta, prefix).items()}
    return {"inference.policy.type": "remote", **statics} if served else statics
