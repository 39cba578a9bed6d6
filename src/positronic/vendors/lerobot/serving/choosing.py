"""Choose a checkpoint's inference strategy and backend, by its type and the server's options."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from getiaction.export.manifest import EXPORTABLE
from positronic.codec import Contract
from positronic.vendors.lerobot.serving.backends.base import Backend, require_options
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint
from positronic.vendors.lerobot.serving.strategies.base import Strategy

if TYPE_CHECKING:
    from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend


def choose_backend(
    checkpoint: Checkpoint,
    contract: Contract,
    eager: "TorchBackend",
    *,
    backend: str = "torch",
    precision: str = "float32",
    compile: bool = False,
    say: Callable[[str], None] = print,
) -> Backend:
    """Choose the backend of a checkpoint, which has been compared with ``eager``.

    Args:
        checkpoint: The checkpoint.
        contract: Its contract.
        eager: The policy loaded in float32. If an export is chosen, it is no longer needed.
        backend: ``torch``; ``onnx`` or ``openvino``, which are made once for each checkpoint and
            compute ACT on the CPU; or ``auto``, the fastest that is installed and equal.
        precision: ``float32`` or ``bf16``.
        compile: Let torch compile the policy; takes minutes on a CPU.
        say: Called with messages on slow work and on the choice.

    Raises:
        UsageError: The options exclude each other, or do not apply to this policy.
        MissingDependency: The backend is not installed.
        CheckpointError: It cannot be exported, or its actions are not equal.
    """
    require_options(backend, precision, compile)
    kind = eager.policy.config.type
    if kind not in EXPORTABLE or checkpoint.takes_task:
        if backend not in ("auto", "torch") or precision != "float32" or compile:
            raise UsageError(
                f"checkpoint {checkpoint.label} ({kind}) is served by torch in float32 only;"
                " leave --backend, --precision and --compile away"
            )
        return eager
    if (backend, precision, compile) == ("torch", "float32", False):
        return eager
    from positronic.vendors.lerobot.serving.backends.selection import Selection

    selection = Selection(checkpoint, contract.features, eager, precision, say)
    if backend == "torch" or compile:
        return selection.torch(compiled=compile)
    if backend == "auto":
        return selection.fastest()
    if reason := selection.why_not_exported():
        raise UsageError(f"--backend={backend}: {reason}; use --backend=torch")
    return selection.exported(backend)


def choose_strategy(checkpoint: Checkpoint, eager: "TorchBackend", backend: Backend) -> Strategy:
    """Choose the inference strategy of a loaded policy with the backend of `choose_backend`."""
    # Imported late: torch and LeRobot take seconds.
    from positronic.vendors.lerobot.serving.strategies.batched_stateful import (
        MERGED,
        BatchedStateful,
    )
    from positronic.vendors.lerobot.serving.strategies.chunks import Chunks, TemporalEnsemble
    from positronic.vendors.lerobot.serving.strategies.sequential import Sequential

    config = eager.policy.config
    if checkpoint.takes_task or config.type not in {"act", *MERGED}:
        return Sequential(eager)
    if config.type in MERGED:
        return BatchedStateful(eager)
    if config.temporal_ensemble_coeff is not None:
        return TemporalEnsemble(eager, backend)
    return Chunks(backend, config.n_action_steps)
