"""Batched strategy for policies with history that sample actions (Diffusion, VQ-BeT)."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import ACTION
from torch.overrides import TorchFunctionMode

from getiaction.policies.lerobot.quirks import with_own_memory
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.strategies.base import Observation, Prediction, Request
from positronic.vendors.lerobot.serving.strategies.memory import Memory

# Policies whose ``predict_action_chunk`` depends on the past by the queues alone. Not TD-MPC: it
# draws once for a complete batch.
MERGED = frozenset({"diffusion", "vqbet"})


class RowNoise(TorchFunctionMode):
    """Context in which each row of a batch draws from its own generator, as if it were alone.

    It overrides the functions by which diffusion and VQ-BeT draw: ``torch.randn`` with the batch as
    the first axis, and ``torch.multinomial`` with rows in the order of the batch.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        """Use one generator for each row of the batch."""
        super().__init__()
        self._generators = generators

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of each of its functions."""
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


class BatchedStateful:
    """Concatenates the observation queues of all sessions and predicts from them in one batch.

    Each session draws from its own generator, so that alone it gets bit for bit what
    ``select_action`` gives after ``torch.manual_seed``; in a batch, sums differ by rounding. If
    VQ-BeT's draw is that close to the boundary of another code, a batch may give the other one.
    """

    every_step = True

    def __init__(self, eager: TorchBackend) -> None:
        """Use the policy of ``eager``."""
        self._eager = eager
        self.n_actions = Memory.empty(eager.policy, None).actions.maxlen or 1

    @torch.inference_mode()
    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `Strategy.predict`; the network runs once."""
        memories = [self._memory(request) for request in requests]
        self._look(requests, memories)
        merged = with_own_memory(self._eager.policy)
        queues = [memory.twin._queues for memory in memories]
        merged._queues = {
            key: deque(torch.cat(moment) for moment in zip(*(q[key] for q in queues), strict=True))
            for key in queues[0]
        }
        seen = dict.fromkeys(key for key in queues[0] if key != ACTION)
        with RowNoise([memory.randomness for memory in memories]):
            chunks = self._eager.post(merged.predict_action_chunk(seen)).cpu().numpy()
        return [Prediction(c, memory) for c, memory in zip(chunks, memories, strict=True)]

    def _memory(self, request: Request) -> Memory:
        if request.memory is not None:
            copied: Memory = request.memory.copy()
            return copied
        generator = torch.Generator(self._eager.device).manual_seed(request.seed)
        return Memory.empty(self._eager.policy, generator)

    def _look(self, requests: Sequence[Request], memories: Sequence[Memory]) -> None:
        """Add each session's new observations to its memory, preprocessed in one batch."""
        moments: list[tuple[Memory, Observation]] = [
            (memory, observation)
            for request, memory in zip(requests, memories, strict=True)
            for observation in (*request.unseen, request.observation)
        ]
        batch = {
            key: np.stack([observation[key] for _, observation in moments])
            for key in requests[0].observation
        }
        prepared: dict[str, Any] = self._eager.pre(self._eager.observation(batch))
        for row, (memory, _) in enumerate(moments):
            memory.see(
                {
                    key: value[row : row + 1]
                    for key, value in prepared.items()
                    if isinstance(value, torch.Tensor) and value.ndim > 0
                }
            )
