"""Special cases of LeRobot's policies: action queues, step counters, losses, axis order."""

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCTOLD
from lerobot.utils.constants import ACTION, OBS_IMAGE
from torch import Tensor, nn

from getiaction.gyms.randomness import EpisodeRandomness

if TYPE_CHECKING:
    # Imports Lightning, which servers do not need.
    from getiaction.policies.base import Batch


COUNTER = "optimized_steps"

# Policies whose chunks come as (T, B, A).
TIME_FIRST = frozenset({"tdmpc"})


@contextmanager
def without_trace(policy: nn.Module) -> Iterator[None]:
    """Context in which ``policy`` may compute losses; its state is restored afterwards.

    LeRobot's policies have one ``forward`` for training and offline evaluation, with side effects:
    Diffusion and TDMPC draw noise from the global random numbers, VQ-BeT counts each call as a step
    of its first phase and freezes its codebook at the last of them. Random numbers start from the
    same state each time, so that equal weights have equal losses.
    """
    devices = {p.device.index or 0 for p in policy.parameters() if p.device.type == "cuda"}
    modules = [(module, _plain(module), _buffers(module)) for module in policy.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in policy.parameters()]
    try:
        with EpisodeRandomness(0, tuple(sorted(devices))).active():
            yield
    finally:
        for module, plain, buffers in modules:
            vars(module).update(plain)
            for name, (buffer, value) in buffers.items():
                module._buffers[name] = buffer.copy_(value)
        for parameter, wanted in trainable:
            parameter.requires_grad_(wanted)


def _plain(module: nn.Module) -> dict[str, Any]:
    """Return the module's own counters and flags, including ``training``."""
    return {name: value for name, value in vars(module).items() if isinstance(value, int | float)}


def _buffers(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    return {
        name: (buffer, buffer.clone())
        for name, buffer in module._buffers.items()
        if buffer is not None
    }


def pack_counters(policy: nn.Module) -> dict[str, int]:
    """Return the step counters by module name."""
    return {name: getattr(module, COUNTER) for name, module in _counting(policy).items()}


def unpack_counters(policy: nn.Module, counts: Mapping[str, int] | int) -> None:
    """Set the step counters, to one number for all or by module; call after loading the weights."""
    for name, module in _counting(policy).items():
        setattr(module, COUNTER, counts if isinstance(counts, int) else counts.get(name, 0))
        if bool(module.discretized):
            module.vq_layer.requires_grad_(False)


def _counting(policy: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in policy.named_modules() if hasattr(module, COUNTER)}


class AnyCamera(TDMPCTOLD):
    """LeRobot's TD-MPC model with an encoder that accepts the camera under any name.

    When acting, LeRobot 0.6.1 passes the frame as ``observation.image``, and fails if the dataset
    names it otherwise. Training passes both.
    """

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """Encode an observation into its latent representation (..., latent_dim)."""
        camera = next(iter(self.config.image_features), OBS_IMAGE)
        if camera not in obs and OBS_IMAGE in obs:
            obs = {**obs, camera: obs[OBS_IMAGE]}
        latent: Tensor = super().encode(obs)
        return latent


def accept_any_camera(network: Any) -> None:
    """Let LeRobot's ``TDMPCPolicy`` act with a camera of any name; its weights are unchanged."""
    network.model.__class__ = AnyCamera


def with_own_memory(policy: Any) -> Any:
    """Return a shallow copy whose ``reset`` does not affect the original's memory."""
    twin = copy.copy(policy)
    for name, value in vars(policy).items():
        # E.g. ACT's temporal ensembler, a plain object that reset() empties in place.
        if hasattr(value, "reset") and not isinstance(value, torch.nn.Module):
            setattr(twin, name, copy.copy(value))
    return twin


def plan(policy: Any, batch: "Batch") -> Tensor:
    """Return the normalised actions (B, T, A) that ``policy`` plans from ``batch``.

    Policies with history (diffusion, vqbet, tdmpc) read it from queues that only their
    ``select_action`` fills. A batch of a dataset contains its own history; a single observation is
    taken as the next one of the policy's episode. Neither is added to the queues.

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
        # With an action left in its queue, a policy only queues the observation.
        twin._queues[ACTION] = deque([None])
        twin.select_action(moment)
    twin._queues[ACTION] = deque(maxlen=queues[ACTION].maxlen)
    return _planned(twin, present)


def _planned(policy: Any, batch: "Batch") -> Tensor:
    """Return the chunk that ``select_action`` plans, recorded by a wrapper."""
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
    """Yield the observations up to the present; a dataset's samples may hold later ones too."""
    for at, delta in enumerate(config.observation_delta_indices):
        if delta <= 0:
            yield {
                key: value[:, at] if key in config.input_features else value
                for key, value in batch.items()
                if not key.startswith(ACTION)
            }
