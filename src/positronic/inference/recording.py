"""Record rollouts as raw episodes, in the same layout as demonstrations, and as videos."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from positronic.geom import pose_from_wire
from positronic.inference.results import EpisodeResult, flatten
from positronic.inference.video import RolloutVideo, VideoDirectory

if TYPE_CHECKING:
    from positronic.dataset import DatasetWriter

SIM_STATE = "sim_state.mjSTATE_INTEGRATION"


class EpisodeRecorder:
    """Records one rollout as an episode, which is hidden until :meth:`finish`."""

    def __init__(self, writer: "DatasetWriter", fps: int) -> None:
        self._episode = writer.new_episode()
        self._fps = fps
        self._observed = -1

    def observe(
        self, step: int, obs: Mapping[str, Any], sim_state: NDArray[np.float64] | None
    ) -> None:
        """Record the observation before the command of ``step``; a repeated step is ignored."""
        if step <= self._observed:
            return
        self._observed = step
        ts = self._time(step)
        for name, value in obs.items():
            self._episode.append(name, value, ts)
        if sim_state is not None:
            self._episode.append(SIM_STATE, sim_state, ts)

    def command(self, step: int, robot_command: Mapping[str, Any], target_grip: float) -> None:
        """Record the command for the observation of ``step``, given in wire form."""
        ts = self._time(step)
        if robot_command["type"] == "cartesian_pos":
            pose = pose_from_wire(np.asarray(robot_command["pose"], dtype=np.float64))
            self._episode.append("robot_commands.pose", pose, ts)
        else:
            joints = np.asarray(robot_command["positions"], dtype=np.float64)
            self._episode.append("robot_commands.joints", joints, ts)
        self._episode.append("target_grip", float(target_grip), ts)

    def vector(self, step: int, action: NDArray[np.float64]) -> None:
        """Record the action vector for the observation of ``step``."""
        self._episode.append("action", action, self._time(step))

    def finish(self, statics: Mapping[str, Any], *, publish: bool = True) -> Path:
        """Finish the episode and return its directory, which is hidden unless published."""
        for name, value in statics.items():
            self._episode.set_static(name, value)
        return self._episode.publish() if publish else self._episode.stage()

    def abort(self) -> None:
        """Discard the recording."""
        self._episode.abort()

    def _time(self, step: int) -> int:
        return (step * 10**9) // self._fps


class RolloutRecorder:
    """Recorder of a rollout: the raw episode and the video, each if requested."""

    def __init__(self) -> None:
        """Create a recorder that records nothing before :meth:`open`."""
        self._recorder: EpisodeRecorder | None = None
        self._video: RolloutVideo | None = None
        self._last_frame = -1

    def open(
        self, writer: "DatasetWriter | None", videos: VideoDirectory | None, index: int, fps: int
    ) -> None:
        """Start recording rollout ``index``, to ``writer`` and ``videos`` if given."""
        if writer is not None:
            self._recorder = EpisodeRecorder(writer, fps)
        if videos is not None:
            self._video = videos.begin(index, fps)

    def observe(
        self, step: int, obs: Mapping[str, Any], sim_state: NDArray[np.float64] | None
    ) -> None:
        """Record the observation before the command of ``step``; a repeated step is ignored."""
        if self._recorder is not None:
            self._recorder.observe(step, obs, sim_state)
        if self._video is not None and step > self._last_frame:
            self._last_frame = step
            self._video.add(obs)

    def command(self, step: int, robot_command: Mapping[str, Any], target_grip: float) -> None:
        """Record the command for the observation of ``step``."""
        if self._recorder is not None:
            self._recorder.command(step, robot_command, target_grip)

    def vector(self, step: int, action: NDArray[np.float64]) -> None:
        """Record the action vector for the observation of ``step``."""
        if self._recorder is not None:
            self._recorder.vector(step, action)

    def finish(
        self, result: EpisodeResult, statics: Mapping[str, Any], *, publish: bool
    ) -> EpisodeResult:
        """Finish recording and video; return the result with the paths of both."""
        video = None if self._video is None else self._video.finish(result.ended_by)
        path = None
        if self._recorder is not None:
            path = self._recorder.finish(statics, publish=publish)
        return replace(result, path=path, video=video)

    def abort(self) -> None:
        """Discard recording and video."""
        if self._recorder is not None:
            self._recorder.abort()
        if self._video is not None:
            self._video.abort()


def storable(value: Any) -> Any:
    """Convert ``value`` to a valid static value: None is dropped, unknown types become text."""
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
    """Flatten the metadata of a policy into static values.

    Metadata of a server is prefixed by ``inference.policy.server.``, as in public Positronic; it is
    recognised by its ``host``.
    """
    served = "host" in meta
    prefix = "inference.policy.server." if served else "inference.policy."
    statics = {name: storable(value) for name, value in flatten(meta, prefix).items()}
    return {"inference.policy.type": "remote", **statics} if served else statics
