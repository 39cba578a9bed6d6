"""Validation loss without side effects on the policy that is being trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from getiaction.gyms.randomness import EpisodeRandomness


@contextmanager
def without_trace(policy: nn.Module) -> Iterator[None]:
    """Let ``policy`` compute losses inside, and be as it was afterwards.

    LeRobot's policies have one ``forward`` for training and for offline evaluation, and it does
    more than to compute: Diffusion and TDMPC draw noise from the global random numbers, VQ-BeT
    counts each call as a step of its first phase and freezes its codebook at the last of them.
    Inside, random numbers begin at the same state each time, so that equal weights have equal
    losses.
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
    """The module's own counters and flags, ``training`` among them."""
    return {name: value for name, value in vars(module).items() if isinstance(value, int | float)}


def _buffers(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    return {
        name: (buffer, buffer.clone())
        for name, buffer in module._buffers.items()
        if buffer is not None
    }
