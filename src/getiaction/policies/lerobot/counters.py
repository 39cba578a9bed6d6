"""Training counters of a policy that LeRobot keeps in no checkpoint.

VQ-BeT trains its codebook for so many steps before anything else, counts them in a plain attribute,
and then stops that part from learning; loaded weights say that it is past the phase, not how far
into it, and learn again.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

COUNTER = "optimized_steps"


def pack_counters(policy: nn.Module) -> dict[str, int]:
    """Return the counts by module name."""
    return {name: getattr(module, COUNTER) for name, module in _counting(policy).items()}


def unpack_counters(policy: nn.Module, counts: Mapping[str, int] | int) -> None:
    """Count on from ``counts``, or all from one number; after the weights were loaded."""
    for name, module in _counting(policy).items():
        setattr(module, COUNTER, counts if isinstance(counts, int) else counts.get(name, 0))
        if bool(module.discretized):
            module.vq_layer.requires_grad_(False)


def _counting(policy: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in policy.named_modules() if hasattr(module, COUNTER)}
