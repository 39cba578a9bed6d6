"""A trained LeRobot checkpoint as a policy, in this process.

What native LeRobot would do with the same observation is done with LeRobot's own classes; added
are the codec on both sides, a lock so that sessions in several threads can share the weights, and
refusals instead of silent nonsense.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import configuronic as cfn
import numpy as np
from numpy.typing import NDArray

from positronic.codec import Codec, Contract
from positronic.errors import CheckpointError, CodecError, UsageError
from positronic.policy.base import Action
from positronic.vendors.lerobot.checkpoints import Checkpoint, CheckpointDirectory


class LeRobotPolicy:
    """One loaded checkpoint; any number of sessions may use it at once."""

    def __init__(self, checkpoint: Checkpoint, contract: Contract, device: str = "auto") -> None:
        """Load the weights and processors; takes seconds, most of them imports.

        Args:
            checkpoint: Where they are.
            contract: What `Checkpoint.verify` returned.
            device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

        Raises:
            CheckpointError: LeRobot cannot load it, or it needs what a session does not give.
            UsageError: There is no such device.
        """
        self.checkpoint, self.contract = checkpoint, contract
        self._codec = contract.make_codec()
        self._lock = threading.Lock()
        device = choose_device(device)
        try:
            self._policy, self._pre, self._post = _load(checkpoint.path, device)
        except Exception as error:
            # Whatever LeRobot, torch and safetensors raise; one line, without this machine's paths.
            lines = str(error).replace(str(checkpoint.path), checkpoint.label).splitlines()
            raise CheckpointError(
                f"checkpoint {checkpoint.label} cannot be loaded:"
                f" {lines[0] if lines else type(error).__name__}"
            ) from error
        config = self._policy.config
        if getattr(config, "n_obs_steps", 1) > 1 or getattr(
            config, "temporal_ensemble_coeff", None
        ):
            raise CheckpointError(
                f"checkpoint {checkpoint.label} ({config.type}) needs the history of its session"
                " (n_obs_steps above 1, or temporal ensembling), which is not supported yet"
            )
        self._steps: int = config.n_action_steps
        self._takes_task = checkpoint.takes_task
        self._meta = {
            "type": config.type,
            "device": device,
            "action_fps": float(contract.fps),
            "action_horizon_sec": self._steps / contract.fps,
            "image_sizes": self._codec.meta.get("image_sizes", {}),
            "contract": contract.to_json(),
            "checkpoint_id": checkpoint.id,
            "checkpoint_path": checkpoint.label,
        }

    @property
    def meta(self) -> dict[str, Any]:
        """What the ready message says of the checkpoint."""
        return self._meta

    def new_session(self, context: Mapping[str, Any] | None = None) -> "LeRobotSession":
        """Start an episode; sessions share the weights and nothing else."""
        return LeRobotSession(self, context or {})

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Encode one observation, predict, and decode the actions that are to be played.

        Raises:
            CodecError: The observation does not fit; names the key and what was expected.
        """
        task = str(obs.get("task") or "")
        actions = self.predict(self._codec.encode(obs), task)
        return [
            {**self._codec.decode(action), "timestamp": i / self.contract.fps}
            for i, action in enumerate(actions)
        ]

    def predict(self, encoded: Mapping[str, NDArray[Any]], task: str = "") -> NDArray[np.float32]:
        """Predict ``(n_action_steps, action_dim)`` in the units of the dataset.

        Args:
            encoded: Codec output: float vectors ``(n,)`` and images uint8 ``(H, W, 3)``.
            task: Used only where the policy has a tokenizer; ACT never sees it.
        """
        import torch
        from lerobot.policies.utils import prepare_observation_for_inference

        for key in self._policy.config.input_features:
            expected = tuple(self.contract.features[key]["shape"])
            if key not in encoded or encoded[key].shape != expected:
                got = encoded[key].shape if key in encoded else "nothing"
                raise CodecError(f"{key} has shape {got}, expected {expected}")
        # LeRobot's function writes into the mapping, and torch warns about read-only arrays.
        arrays = {
            key: value if value.flags.writeable else value.copy() for key, value in encoded.items()
        }
        with self._lock, torch.inference_mode():
            batch = prepare_observation_for_inference(
                arrays, torch.device(self._meta["device"]), task
            )
            if not self._takes_task:
                del batch["task"]
            del batch["robot_type"]
            chunk = self._policy.predict_action_chunk(self._pre(batch))[:, : self._steps]
            actions: NDArray[np.float32] = self._post(chunk)[0].cpu().numpy()
        if not np.isfinite(actions).all():
            raise CodecError("the policy predicted actions that are not finite numbers")
        return actions

    def warm_up(self) -> None:
        """Predict once from zeros, so that the first real observation waits for nothing."""
        zeros: dict[str, NDArray[Any]] = {
            key: np.zeros(feature["shape"], np.uint8 if len(feature["shape"]) == 3 else np.float32)
            for key, feature in self.contract.features.items()
            if key in self._policy.config.input_features
        }
        self.predict(zeros)

    def close(self) -> None:
        """Nothing to give back: weights go when the last session that uses them does."""


class LeRobotSession:
    """One episode with a `LeRobotPolicy`."""

    def __init__(self, policy: LeRobotPolicy, context: Mapping[str, Any]) -> None:
        self._policy = policy
        self._context = dict(context)

    @property
    def meta(self) -> dict[str, Any]:
        """The policy's."""
        return self._policy.meta

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """See `LeRobotPolicy.infer`."""
        return self._policy.infer({**self._context, **obs} if self._context else obs)

    def close(self) -> None:
        """Nothing to give back."""


def choose_device(device: str) -> str:
    """Turn ``auto`` into what this machine has; refuse a device that it does not have."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device={device} cannot be used here; choose auto, cpu or a device that is there"
        ) from error
    return device


def _load(path: Path, device: str) -> tuple[Any, Any, Any]:
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(path, local_files_only=True)
    config.device = device
    if hasattr(config, "pretrained_backbone_weights"):
        # The checkpoint overwrites them; without this they would be downloaded first.
        config.pretrained_backbone_weights = None
    policy = get_policy_class(config.type).from_pretrained(
        path, config=config, local_files_only=True
    )
    pre, post = make_pre_post_processors(
        config,
        pretrained_path=str(path),
        preprocessor_overrides={"device_processor": {"device": device}},
    )
    return policy, pre, post


@cfn.config()
def act_absolute(
    checkpoints_dir: str,
    checkpoint: str | int | None = None,
    codec: Codec | None = None,
    device: str = "auto",
) -> LeRobotPolicy:
    """A trained checkpoint in this process, without a server.

    Args:
        checkpoints_dir: Directory of the training run, or the checkpoints folder in it; local or
            s3://bucket/key.
        checkpoint: Step of the checkpoint; the newest if not given.
        codec: Codec of the training; the checkpoint knows it.
        device: auto, cpu, cuda or another one of torch.
    """
    directory = CheckpointDirectory(checkpoints_dir)
    found = directory.checkpoint(directory.resolve(checkpoint))
    return LeRobotPolicy(found, found.verify(codec), device)
