"""Exact resume from a Lightning checkpoint: restores the random state of every process."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor, distributed

type State = dict[str, Any]


class ExactResume(Callback):
    """Store the random state of every process in Lightning's checkpoints, and restore it.

    With a resumable training loader, as of :class:`getiaction.data.DataModule`, a run that is
    resumed by ``fit(ckpt_path=...)`` then equals an uninterrupted one: the same batches, dropout
    and noise.
    """

    def __init__(self) -> None:
        self._pending: list[State] = []

    def state_dict(self) -> State:
        """Return the random states, one per process."""
        states: list[Any] = [random_state()]
        if distributed.is_available() and distributed.is_initialized():
            states = [None] * distributed.get_world_size()
            distributed.all_gather_object(states, random_state())
        return {"processes": states}

    def load_state_dict(self, state_dict: State) -> None:
        """Keep the states for the first training batch."""
        self._pending = state_dict["processes"]

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Let Lightning continue within the epoch in which training ended."""
        reopen_epoch(checkpoint.get("loops", {}).get("fit_loop", {}))

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Discard states loaded by an earlier call of the trainer."""
        self._pending = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Restore the random state, as late as possible: creating the loader's iterator uses it.

        The uninterrupted run used it there too if, and only if, it was at the start of an epoch and
        its workers are not persistent.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        # With more processes than before, the additional ones have no state.
        if trainer.global_rank < len(pending):
            restore_random_state(pending[trainer.global_rank])
        if batch_idx == 0 and not getattr(trainer.train_dataloader, "persistent_workers", False):
            torch.empty((), dtype=torch.int64).random_()


def reopen_epoch(fit_loop: State) -> None:
    """Correct, in place, Lightning's count of epochs in the state of its fit loop.

    When training ends by ``max_steps``, ``max_time`` or early stopping, Lightning counts the
    current epoch as done, though batches of it may be left; a resumed run would skip them, and end
    an epoch too early. If none are left, a run limited by steps would take one batch too many; and
    the count differs again after a resume. So the state is corrected to that of a checkpoint saved
    right after the batch, by the epoch in the training loader's state.
    """
    epochs: State = fit_loop.get("epoch_progress") or {}
    batches: State = fit_loop.get("epoch_loop.batch_progress") or {}
    loaders = fit_loop.get("state_dict", {}).get("combined_loader") or [{}]
    if "first_epoch" not in loaders[0] or not (epochs and batches and batches["current"]["ready"]):
        return
    epoch = loaders[0]["epoch"] - loaders[0]["first_epoch"]
    counted_as_done = epochs["current"]["processed"] > epoch
    for count in (epochs["total"], epochs["current"]):
        count["ready"] = count["started"] = epoch + 1
        count["processed"] = count["completed"] = epoch
    if batches["is_last_batch"]:
        for count in (batches["total"], batches["current"]):
            count["completed"] = count["processed"] - 1
        if counted_as_done:
            fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def random_state() -> State:
    """Return the state of Python's, NumPy's and torch's global generators, as plain data."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: State) -> None:
    """Restore the global generators to a state returned by :func:`random_state`."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(
        (
            numpy["kind"],
            numpy["keys"].cpu().numpy().astype(np.uint32),
            numpy["position"],
            numpy["has_gauss"],
            numpy["cached"],
        )
    )
    torch.set_rng_state(_on_cpu(state["torch"]))
    for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(_on_cpu(device_state), device)


def _on_cpu(state: Tensor) -> Tensor:
    # Checkpoints are loaded to the training device.
    return state.cpu()
