"""Record rollouts as raw episodes, in the same layout as demonstrations, and as films."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from positronic.geom import pose_from_wire
from positronic.inference.results import EpisodeResult, flatten
from positronic.inference.video import FilmDirectory, RolloutFilm

if TYPE_CHECKING:
    from positronic.dataset import DatasetWriter

SIM_STATE = "sim_state.mjSTATE_INTEGRATION"


class EpisodeRecorder:
    """One rollout on its way to the disk; nothing is visible there before :meth:`finish`."""

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

    def finish(self, statics: Mapping[str, Any], *, publish: bool = True) -> Path:
        """Finish the episode and return its directory, which is hidden unless it is published."""
        for name, value in statics.items():
            self._episode.set_static(name, value)
        return self._episode.publish() if publish else self._episode.stage()

    def abort(self) -> None:
        """Throw the recording away."""
        self._episode.abort()

    def _time(self, step: int) -> int:
        return (step * 10**9) // self._fps


class Tape:
    """What is kept of a rollout: its recording and its film, each where it is wanted."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._recorder: EpisodeRecorder | None = None
        self._film: RolloutFilm | None = None
        self._filmed = -1

    def open(
        self, writer: "DatasetWriter | None", films: FilmDirectory | None, index: int, fps: int
    ) -> None:
        """Begin to keep rollout ``index``, where there is a place for it."""
        if writer is not None:
            self._recorder = EpisodeRecorder(writer, fps)
        if films is not None:
            self._film = films.begin(index, fps)

    def observe(self, step: int, obs: Mapping[str, Any], sim_state: NDArray[np.float64]) -> None:
        """Keep the observation before the command of ``step``; a second time does nothing."""
        if self._recorder is not None:
            self._recorder.observe(step, obs, sim_state)
        if self._film is not None and step > self._filmed:
            self._filmed = step
            self._film.add(obs)

    def command(self, step: int, robot_command: Mapping[str, Any], target_grip: float) -> None:
        """Keep the command given on the observation of ``step``."""
        if self._recorder is not None:
            self._recorder.command(step, robot_command, target_grip)

    def finish(
        self, result: EpisodeResult, statics: Mapping[str, Any], *, publish: bool
    ) -> EpisodeResult:
        """Finish recording and film; return the result with the places of both."""
        video = None if self._film is None else self._film.finish(result.ended_by)
        path = None
        if self._recorder is not None:
            path = self._recorder.finish(statics, publish=publish)
        return replace(result, path=path, video=video)

    def abort(self) -> None:
        """Throw away what was kept."""
        if self._recorder is not None:
            self._recorder.abort()
        if self._film is not None:
            self._film.abort()


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
