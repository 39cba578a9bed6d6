"""Torch backend: LeRobot's own policy and processors, the reference for all other backends."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.errors import UsageError
from getiaction.policies.safety import CONFIG, read_config
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.serving.backends.base import TOLERANCES
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint


class TorchBackend:
    """A checkpoint loaded by LeRobot.

    Attributes:
        policy: LeRobot's, in evaluation mode.
        pre: LeRobot's preprocessor, which normalises and moves to the device.
        post: LeRobot's postprocessor, back to the dataset's units on the CPU.
        device: Name of the torch device.
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        """Load weights and processors for float32; takes seconds, most of them imports.

        Args:
            checkpoint: The checkpoint.
            device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

        Raises:
            CheckpointError: LeRobot cannot load it.
            UsageError: There is no such device.
        """
        self.device = choose_device(device)
        try:
            checkpoint.require_safe()
            self.policy, self.pre, self.post = _load(checkpoint.path, self.device)
        except CheckpointError:
            raise
        except Exception as error:
            # Any error of LeRobot, torch and safetensors: in one line, without this machine's
            # paths.
            lines = str(error).replace(str(checkpoint.path), checkpoint.label).splitlines()
            raise CheckpointError(
                f"checkpoint {checkpoint.label} cannot be loaded:"
                f" {lines[0] if lines else type(error).__name__}"
            ) from error
        self.precision, self.tolerance = "float32", TOLERANCES["float32"]
        self._takes_task = checkpoint.takes_task
        tensors = [*self.policy.parameters(), *self.policy.buffers()]
        self.nbytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def at(self, precision: str) -> Self:
        """Return a backend with the same weights, in ``float32`` or (by autocast) in ``bf16``."""
        if precision == self.precision:
            return self
        twin = copy.copy(self)
        twin.precision, twin.tolerance = precision, TOLERANCES[precision]
        return twin

    def compile(self) -> None:
        """Let torch compile the network at its next use, for batches of any size."""
        for network in self.policy.children():
            network.compile(dynamic=True)

    def predict_chunk(
        self, batch: Mapping[str, NDArray[Any]], tasks: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """See `Backend`; only language-conditioned policies get ``tasks``."""
        with torch.inference_mode():
            observation = self.pre(self.observation(batch, tasks))
            with self.autocast():
                chunk = self.policy.predict_action_chunk(observation)
            actions: NDArray[np.float32] = self.post(chunk.float()).cpu().numpy()
        return actions

    def observation(
        self, batch: Mapping[str, NDArray[Any]], tasks: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return a batch as LeRobot's ``prepare_observation_for_inference`` makes one observation.

        Args:
            batch: See `Backend.predict_chunk`.
            tasks: One for each observation.

        Returns:
            Input of ``pre``: images float32 (B, 3, H, W) in [0, 1].
        """
        tensors: dict[str, Any] = {}
        for key, array in batch.items():
            # torch warns about read-only arrays, as decoded messages have.
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
            if "image" in key:
                if tensor.dtype == torch.uint8:
                    tensor = tensor.type(torch.float32) / 255
                tensor = tensor.permute(0, 3, 1, 2).contiguous()
            tensors[key] = tensor.to(self.device)
        if self._takes_task:
            (size,) = {len(array) for array in batch.values()}
            tensors["task"] = list(tasks or [""] * size)
        return tensors

    def autocast(self) -> torch.autocast:
        """Return a context in which the policy computes in the backend's precision."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16")


def choose_device(device: str) -> str:
    """Resolve ``auto`` to CUDA or CPU; refuse a device that this machine does not have."""
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

    from getiaction.policies.lerobot.registry import config_class, log_loading, register_steps

    config_class(read_config(path / CONFIG).type)
    register_steps(path)
    config = PreTrainedConfig.from_pretrained(path, local_files_only=True)
    config.device, config.pretrained_path = device, None
    if hasattr(config, "pretrained_backbone_weights"):
        # The checkpoint overwrites them; without this they would be downloaded first.
        config.pretrained_backbone_weights = None
    log_loading()
    policy = get_policy_class(config.type).from_pretrained(
        path, config=config, local_files_only=True
    )
    pre, post = make_pre_post_processors(
        config,
        pretrained_path=str(path),
        preprocessor_overrides={"device_processor": {"device": device}},
    )
    return policy, pre, post
