"""CodecGym: the simulator as a gym of `getiaction`, observed and commanded through a codec.

For YAML and Python alike::

    val_gyms:
      class_path: positronic.vendors.lerobot.gym.CodecGym
      init_args: {gym_id: positronic/StackCubes-v0, codec: eepose_state}
"""

from collections.abc import Mapping
from typing import Any, override

import gymnasium
import numpy as np
from gymnasium import spaces

from foundation import storage
from foundation.errors import FoundationError
from getiaction.errors import GetiactionError
from getiaction.gyms import GymnasiumGym
from getiaction.roots import pinned_dataset
from positronic import simulator
from positronic.codec import Codec, Command, Contract
from positronic.codec.contract import FILE_NAME
from positronic.codec.documents import require_sized
from positronic.simulator.scene import CAMERAS
from positronic.vendors.lerobot import codecs

__all__ = ["CodecEnv", "CodecGym", "resolve"]

# Where a contract lies: in a converted dataset, in a checkpoint, in a run's newest checkpoint.
_CONTRACTS = ("", "meta", "pretrained_model", "checkpoints/last/pretrained_model")


class CodecGym(GymnasiumGym):
    """One of `positronic.simulator`'s environments with the features of a converted dataset.

    The codec encodes each observation as it encodes recordings, and decodes each action into the
    arm's command, so that a policy sees what it was trained on. Only cameras that the codec reads
    are rendered.

    Args:
        gym_id: ``positronic/StackCubes-v0``, ``positronic/PickPlace-v0``, or their short names.
        codec: A codec; the name of one in `positronic.vendors.lerobot.codecs`; or a path with a
            contract: a converted dataset, a checkpoint or a training run. A contract also sets the
            steps per second.
        codec_options: Arguments of a codec given by name, such as ``{"image_size": [64, 64]}``.
        task: What the policy is told to do, instead of the environment's own words.
        max_episode_steps: Steps after which an episode is cut off; the environment's limit if None.
        rename_map: Observation keys to call otherwise; see `getiaction.gyms.Gym`.
        **make_kwargs: Passed on to ``positronic.simulator.env.PandaEnv``; in YAML, where only
            ``init_args`` have names that can be checked, ``dict_kwargs: {command_noise: 0.003}``.

    Raises:
        GetiactionError: there is no such environment or codec, or they do not belong together.
    """

    package = "sim"

    def __init__(
        self,
        gym_id: str = "positronic/StackCubes-v0",
        codec: Any = "eepose_state",
        *,
        codec_options: Mapping[str, Any] | None = None,
        task: str = "",
        max_episode_steps: int | None = None,
        rename_map: Mapping[str, str] | None = None,
        **make_kwargs: Any,
    ) -> None:
        try:
            self.codec, fps = resolve(codec, codec_options or {})
            gym_id = simulator.env_id(gym_id)
        except FoundationError as error:
            raise GetiactionError(str(error)) from error
        cameras = tuple(name for name in self.codec.inputs if name in CAMERAS)
        defaults = {"cameras": cameras} | ({} if fps is None else {"control_fps": fps})
        super().__init__(
            gym_id,
            task=task,
            max_episode_steps=max_episode_steps,
            rename_map=rename_map,
            **(defaults | make_kwargs),
        )

    @override
    def make(self, *, render: bool = False) -> gymnasium.Env[Any, Any]:
        try:
            return CodecEnv(super().make(render=render), self.codec)
        except FoundationError as error:
            raise GetiactionError(f"{self.gym_id} cannot be made: {error}") from error


class CodecEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gymnasium wrapper: observations and actions are a codec's features.

    Observations are the codec's: vectors float32 (n,), images uint8 (H, W, 3), by LeRobot's keys.
    Actions are the policy's, float32 (n,), in the dataset's units.

    Raises:
        GetiactionError: the codec has no action, or reads signals that the environment lacks.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], codec: Codec) -> None:
        super().__init__(env)
        self._codec = codec
        self._encoded: dict[str, Any] | None = None
        self._raw: Mapping[str, Any] = {}
        self._command: Command | None = None
        world: Any = env.unwrapped
        self._world = world
        features = dict(codec.features)
        action = features.pop("action", None)
        given = [*getattr(env.observation_space, "spaces", ())]
        missing = [name for name in codec.inputs if name not in given]
        if missing or action is None:
            lack = f"reads {', '.join(missing)}" if missing else "has no action"
            raise GetiactionError(
                f"codec {codec.name!r} {lack}, so it does not fit {world.task_name} (which "
                f"gives {', '.join(given)}): choose another codec or environment"
            )
        # A codec declares shapes only: no numbers are bounded, not even poses.
        self.observation_space = spaces.Dict(
            {name: _box(feature) for name, feature in features.items()}
        )
        self.action_space = _box(action)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; returns the encoded observation and the info."""
        self._raw, info = self.env.reset(seed=seed, options=options)
        self._encoded, self._command = self._codec.encode(self._raw), None
        return self._encoded, info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Decode the action, step the environment, encode the observation."""
        command = self._codec.decode(action, self._raw, self._command)
        self._raw, reward, terminated, truncated, info = self.env.step(
            self._world.command_to_action(command["robot_command"], command["target_grip"])
        )
        self._encoded, self._command = self._codec.encode(self._raw, self._encoded), command
        return self._encoded, reward, terminated, truncated, info


def resolve(codec: Any, options: Mapping[str, Any]) -> tuple[Codec, int | None]:
    """Return the codec that ``codec`` names, and the steps per second if it has a contract.

    Raises:
        GetiactionError: there is no codec of this name and no contract at this path.
        ContractError: the contract is invalid.
    """
    if isinstance(codec, Codec) and not options:
        return codec, None
    if codec in codecs.__all__:
        try:
            made: Codec = getattr(codecs, codec)(**options)
            require_sized(made)
        except TypeError as error:
            raise GetiactionError(f"codec {codec!r} has no such option: {error}") from error
        return made, None
    if options:
        raise GetiactionError("codec_options are for a codec that is given by name")
    path = str(codec)
    if storage.is_remote(path):
        path = str(storage.fetch(pinned_dataset(path), only=lambda name: name.endswith(FILE_NAME)))
    for place in _CONTRACTS:
        file = storage.local(path) / place / FILE_NAME
        if file.is_file():
            contract = Contract.load(file)
            return contract.make_codec(), round(contract.fps)
    raise GetiactionError(
        f"codec {codec!r} is neither one of {', '.join(codecs.__all__)} nor the path of a dataset "
        f"or checkpoint with a {FILE_NAME}"
    )


def _box(feature: Mapping[str, Any]) -> spaces.Box:
    shape = tuple(feature["shape"])
    if feature["dtype"] in ("video", "image"):
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)
