"""How LeRobot's kinds of policies act for many sessions that know nothing of each other.

A chunk policy answers one observation with a chunk. All others are asked at every control step and
give the action that LeRobot's ``select_action`` would give there. What such a policy remembers
belongs to the session: `Acting.predict` takes it in a `Request` and returns it changed, in a
`Prediction`, so that a request that was refused, failed or is tried again leaves no trace.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from positronic.vendors.lerobot.backends import choose_backend

if TYPE_CHECKING:
    from positronic.codec import Contract
    from positronic.vendors.lerobot.backends import Backend
    from positronic.vendors.lerobot.backends.torch_backend import TorchBackend
    from positronic.vendors.lerobot.checkpoints import Checkpoint

# Codec output: float32 vectors (n,), uint8 images (H, W, 3).
Observation = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """One session's observation, and what it has lived through."""

    observation: Observation
    task: str = ""
    unseen: tuple[Observation, ...] = ()
    """Earlier ones, oldest first, that `memory` does not hold yet: no network was needed then."""
    memory: Any = None
    """Of the last prediction; None where the episode begins."""
    seed: int = 0
    """Of the session's random numbers; looked at where the episode begins."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The actions to play, float32 (T, A) in the dataset's units, and what to remember."""

    actions: NDArray[np.float32]
    memory: Any = None


class Acting(Protocol):
    """A way of acting.

    Attributes:
        every_step: Each observation is answered with one action; otherwise with all of them.
        n_actions: How many actions one prediction gives.
    """

    every_step: bool
    n_actions: int

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Predict for several sessions; changes nothing that a request holds."""


def choose_acting(
    checkpoint: "Checkpoint",
    contract: "Contract",
    eager: "TorchBackend",
    *,
    backend: str,
    precision: str,
    compile: bool,
    say: Callable[[str], None],
) -> "tuple[Acting, Backend]":
    """Choose how a loaded policy acts, and what computes it; see `choose_backend`.

    Raises:
        UsageError: The policy has no such backend.
    """
    # Late: these import torch and LeRobot, which takes seconds.
    from positronic.vendors.lerobot.acting.chunks import Chunks
    from positronic.vendors.lerobot.acting.ensembled import Ensembled
    from positronic.vendors.lerobot.acting.merged import MERGED, Merged
    from positronic.vendors.lerobot.acting.native import Native

    config = eager.policy.config
    if config.type == "act" and not checkpoint.takes_task:
        chosen = choose_backend(
            checkpoint,
            contract,
            eager,
            backend=backend,
            precision=precision,
            compile=compile,
            say=say,
        )
        if config.temporal_ensemble_coeff is not None:
            return Ensembled(eager, chosen), chosen
        return Chunks(chosen, config.n_action_steps), chosen
    if backend not in ("auto", "torch") or precision != "float32" or compile:
        raise UsageError(
            f"checkpoint {checkpoint.label} ({config.type}) is served by torch in float32 only;"
            " leave --backend, --precision and --compile away"
        )
    merges = config.type in MERGED and not checkpoint.takes_task
    return (Merged if merges else Native)(eager), eager
