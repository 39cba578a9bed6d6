"""Random numbers per row of a batch, from each session's own generator."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class RowNoise(TorchFunctionMode):
    """Inside, each row of a batch is drawn from its own generator, as if it were alone.

    It concerns the functions by which diffusion and VQ-BeT draw: ``torch.randn`` with the batch as
    the first axis, and ``torch.multinomial`` with rows in the order of the batch.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        """One generator for each row of the batch."""
        super().__init__()
        self._generators = generators

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls in place of each of its functions."""
        given = dict(kwargs or {})
        if func is torch.randn and given.get("generator") is None:
            return self._randn(*args, **given)
        if func is torch.multinomial and given.get("generator") is None:
            return self._multinomial(*args, **given)
        return func(*args, **given)

    def _randn(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        size = kwargs.pop("size", args[0] if args and not isinstance(args[0], int) else args)
        kwargs.pop("generator", None)
        rows = self._rows(size[0])
        return torch.cat(
            [torch.randn((rows, *size[1:]), generator=g, **kwargs) for g in self._generators]
        )

    def _multinomial(self, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.pop("generator", None)
        parts = torch.split(input, self._rows(len(input)))
        return torch.cat(
            [
                torch.multinomial(part, *args, generator=generator, **kwargs)
                for part, generator in zip(parts, self._generators, strict=True)
            ]
        )

    def _rows(self, total: int) -> int:
        rows, rest = divmod(total, len(self._generators))
        assert rest == 0, "what is drawn has no whole number of rows for each session"
        return rows
