"""Training precision by LeRobot's rule, and the mixed-precision plugins for Lightning."""

from typing import Any, Literal

import torch
from lerobot.configs import PreTrainedConfig
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import batch_norm
from torch.utils.hooks import RemovableHandle
from torchvision.ops.misc import FrozenBatchNorm2d

type Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

_BY_DTYPE: dict[torch.dtype, Precision] = {
    torch.float32: "32-true",
    torch.bfloat16: "bf16-mixed",
    torch.float16: "16-mixed",
}


def precision_of(config: PreTrainedConfig, device: str) -> Precision:
    """Lightning's ``precision`` for a policy, as ``lerobot-train`` would choose it.

    It follows from the config's ``dtype`` if it has one, else from ``use_amp``, which means torch's
    autocast dtype on the device (``cpu`` bfloat16, ``cuda`` float16).
    """
    named = getattr(config, "dtype", None)
    if named is not None:
        return _BY_DTYPE.get(getattr(torch, str(named), torch.float32), "32-true")
    if not config.use_amp:
        return "32-true"
    return _BY_DTYPE[torch.get_autocast_dtype(device)]


class CachedAutocast(MixedPrecision):
    """Lightning's mixed precision with torch's cache of cast weights, as Accelerate uses it.

    Lightning disables the cache. Gradients of a weight that is used twice, such as a backbone for
    two cameras, are then added in float32 instead of bfloat16, and training differs from LeRobot's.
    """

    def autocast_context_manager(self) -> torch.autocast:
        """Return the context in which the forward pass runs."""
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device, dtype=dtype)


class FastAutocast(CachedAutocast):
    """bfloat16 as in :class:`CachedAutocast`, with faster memory layouts and kernels.

    Images are in channels-last layout, frozen batch norm computes in bfloat16 instead of float32,
    dropout draws fewer random bits, and the optimizer is fused. So sums are rounded differently
    from LeRobot's, and other values are dropped; weights and checkpoints have the same layout.
    """

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)
        self._hooks: list[RemovableHandle] = []
        self._replaced: list[tuple[Module, type[Module]]] = []

    def convert_module(self, module: Module) -> Module:
        """Use channels-last images and faster layers in ``module`` while it is trained."""
        for part in module.modules():
            if isinstance(part, torch.nn.Conv2d):
                self._hooks.append(part.register_forward_pre_hook(_channels_last))
            elif type(part) in _FASTER:
                self._replaced.append((part, type(part)))
                part.__class__ = _FASTER[type(part)]
        return module

    def connect(self, model: Any, optimizers: Any, lr_schedulers: Any) -> Any:
        """Use torch's fused optimizers."""
        for optimizer in optimizers:
            if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
                for group in optimizer.param_groups:
                    group.update(foreach=False, fused=True)
        return super().connect(model, optimizers, lr_schedulers)

    def teardown(self) -> None:
        """Restore the module."""
        for hook in self._hooks:
            hook.remove()
        for part, kind in self._replaced:
            part.__class__ = kind
        self._hooks, self._replaced = [], []
        super().teardown()


class _FrozenInPlace(FrozenBatchNorm2d):
    """Frozen batch norm in bfloat16; torchvision's converts its output to float32."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.bfloat16:
            unchanged: Tensor = super().forward(x)
            return unchanged
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class _BitwiseDropout(torch.nn.Dropout):
    """Dropout with 16 random bits per value, so its probability is exact to 1 in 65536.

    On a CPU torch draws value by value in one thread, which takes a seventh of ACT's step.
    """

    def forward(self, input: Tensor) -> Tensor:
        dropped = round(self.p * 65536)
        on_cpu = input.dtype == torch.bfloat16 and input.device.type == "cpu"
        if not (self.training and on_cpu and 0 < dropped < 65536):
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)
        keep = (bits >= dropped - 32768).to(input.dtype)
        return input * keep.mul_(65536 / (65536 - dropped))


_FASTER: dict[type[Module], type[Module]] = {
    FrozenBatchNorm2d: _FrozenInPlace,
    torch.nn.Dropout: _BitwiseDropout,
}


def _channels_last(module: Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if inputs[0].dim() != 4:
        return inputs
    return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])


def precision_plugin(precision: Any, accelerator: Any) -> CachedAutocast | None:
    """Return our plugin for a mixed ``precision``; None for others, which Lightning supports."""
    if precision not in ("bf16-mixed", "16-mixed"):
        return None
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    device = "cuda" if on_gpu else "cpu"
    return FastAutocast(device) if precision == "bf16-mixed" else CachedAutocast(precision, device)
