"""Refuse to save a checkpoint with NaN or infinity in its weights or optimizer state."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.optim import Optimizer

from getiaction.errors import GetiactionError
from getiaction.policies.finite import first_non_finite


def require_finite(
    module: nn.Module, optimizers: Iterable[Optimizer], *, step: int, kept: str
) -> None:
    """Refuse to save weights, or averages of their gradients, that are NaN or infinite.

    Takes a pass over them, so it is meant for when they are saved; with a loss or a gradient that
    is no number, the weights are none from the next step on.

    Args:
        module: What is to be saved.
        optimizers: Its optimizers.
        step: Steps that were taken.
        kept: What there is to go on with, for the message.

    Raises:
        GetiactionError: naming the step, the weight and what may help.
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
        f"gradients more, and look for such numbers in the dataset; {kept}"
    )


def _averages(module: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[tuple[str, Tensor]]:
    names: dict[Tensor, str] = {weight: name for name, weight in module.named_parameters()}
    for optimizer in optimizers:
        for weight, state in optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"the optimizer's {key} of {names.get(weight, 'a weight')}", value
