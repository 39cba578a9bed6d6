"""Refuse to save a checkpoint with NaN or infinity in its weights or optimizer state."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.optim import Optimizer

from getiaction.errors import GetiactionError
from getiaction.policies.finite import first_non_finite


def require_finite(
    module: nn.Module, optimizers: Iterable[Optimizer], *, step: int, kept: str
) -> None:
    """Check that weights and optimizer state are finite before saving.

    It reads all of them, so it is meant for saving only; after a non-finite loss or gradient, the
    weights are non-finite from the next step on.

    Args:
        module: The module to save.
        optimizers: Its optimizers.
        step: Number of steps taken.
        kept: Description of the last good checkpoint, for the message.

    Raises:
        GetiactionError: the message has the step, the weight and a remedy.
    """
    optimizers = list(optimizers)
    found = first_non_finite(module.state_dict())
    if found is None:
        found = first_non_finite(dict(_averages(module, optimizers)))
    if found is None:
        return
    rates = sorted({f"{group['lr']:.3g}" for opt in optimizers for group in opt.param_groups})
    raise GetiactionError(
        f"after step {step} {found} is NaN or infinite: training has diverged, and this step is "
        f"not saved; lower the learning rate (now {', '.join(rates) or 'unknown'}) or clip "
        f"gradients more, and check the dataset for such values; {kept}"
    )


def _averages(module: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[tuple[str, Tensor]]:
    names: dict[Tensor, str] = {weight: name for name, weight in module.named_parameters()}
    for optimizer in optimizers:
        for weight, state in optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"the optimizer's {key} of {names.get(weight, 'a weight')}", value
