"""Which numbers a policy is trained in, by LeRobot's rule."""

from typing import Any, Literal

import torch
from lerobot.configs import PreTrainedConfig
from lightning.pytorch.plugins.precision import MixedPrecision

type Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

_BY_DTYPE: dict[torch.dtype, Precision] = {
    torch.float32: "32-true",
    torch.bfloat16: "bf16-mixed",
    torch.float16: "16-mixed",
}


def precision_of(config: PreTrainedConfig, device: str) -> Precision:
    """Lightning's ``precision`` for a policy, as ``lerobot-train`` would choose it.

    A config with a ``dtype`` says it by that; one without by ``use_amp``, which means whatever
    torch's autocast does on the device (``cpu`` bfloat16, ``cuda`` float16).
    """
    named = getattr(config, "dtype", None)
    if named is not None:
        return _BY_DTYPE.get(getattr(torch, str(named), torch.float32), "32-true")
    if not config.use_amp:
        return "32-true"
    return _BY_DTYPE[torch.get_autocast_dtype(device)]


class CachedAutocast(MixedPrecision):
    """Lightning's mixed precision with torch's cache of cast weights, as Accelerate uses it.

    Lightning turns the cache off. A weight that is used twice, as a backbone by two cameras, then
    has its gradients added in float32 instead of bfloat16, and training differs from LeRobot's.
    """

    def autocast_context_manager(self) -> torch.autocast:
        """Return the context in which the forward pass runs."""
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device, dtype=dtype)


def precision_plugin(precision: Any, accelerator: Any) -> CachedAutocast | None:
    """Return the plugin of ours for a mixed ``precision``; None where Lightning's own will do."""
    if precision not in ("bf16-mixed", "16-mixed"):
        return None
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    return CachedAutocast(precision, "cuda" if on_gpu else "cpu")
