"""Lightning module around a native LeRobot policy: training steps, optimizer, actions."""

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.processor import DeviceProcessorStep
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from foundation.text import printable
from getiaction.errors import GetiactionError
from getiaction.policies.base import Batch, Policy
from getiaction.policies.lerobot.making import Made, needed_observations
from getiaction.policies.lerobot.quirks import plan, with_own_memory, without_trace


class Wrapped(Policy):
    """Lightning module that delegates to LeRobot's policy, ``lerobot_policy``.

    The policy and its processors are None until they are made; see :class:`LeRobotPolicy`.

    Args:
        config: The policy's config.
        optimizer: Replaces its optimizer preset.
        scheduler: Replaces its learning-rate schedule preset.
        total_steps: Length of the schedule; the trainer's estimate unless given.
    """

    lerobot_policy: Any
    preprocessor: Any
    postprocessor: Any

    def __init__(
        self,
        config: PreTrainedConfig,
        optimizer: OptimizerConfig | None,
        scheduler: LRSchedulerConfig | None,
        total_steps: int | None,
    ) -> None:
        super().__init__()
        self.config: Any = config
        self.optimizer_config: OptimizerConfig = optimizer or config.get_optimizer_preset()
        self.scheduler_config: LRSchedulerConfig | None = scheduler or config.get_scheduler_preset()
        self.total_steps = total_steps
        self.lerobot_policy = self.preprocessor = self.postprocessor = None
        self.grad_norm: Tensor | None = None
        self._needed: tuple[str, ...] = ()
        self._modules_to_train: tuple[torch.nn.Module, ...] = ()

    def _take(self, made: Made) -> Self:
        self.lerobot_policy, self.preprocessor, self.postprocessor = made
        self._needed = needed_observations(self.config, self.preprocessor)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the preprocessor to the network's new device."""
        # Not typed by torch.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.lerobot_policy is not None:
            device = next(self.lerobot_policy.parameters()).device
            self.config.device = device.type
            for step in self.preprocessor.steps:
                if isinstance(step, DeviceProcessorStep) and step.tensor_device != device:
                    step.tensor_device, step.device = device, device.type
                    step.non_blocking = device.type == "cuda"
        return self

    def loss_and_parts(self, batch: Batch) -> tuple[Tensor, Mapping[str, Any]]:
        """Return the loss, a 0-dim tensor, of a preprocessed batch, and its parts by name.

        Raises:
            GetiactionError: the policy gives no such loss.
        """
        output: Any = self.lerobot_policy.forward(batch)
        loss, *rest = output if isinstance(output, tuple) else (output,)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            raise GetiactionError(
                f"policy {self.config.type!r} gives no loss that can be trained on from a dataset"
            )
        return loss, rest[0] if rest and isinstance(rest[0], Mapping) else {}

    def forward(self, batch: Batch) -> Tensor:
        """Return the policy's loss, a 0-dim tensor, for a preprocessed training batch."""
        return self.loss_and_parts(batch)[0]

    def prepare_batch(self, batch: Batch) -> Batch:
        """Preprocess a collated batch of the dataset, or observations, for the policy.

        Camera frames become float32 in [0, 1]; the preprocessor moves and normalises.

        Raises:
            GetiactionError: an observation that the policy needs is missing.
        """
        for key in self._needed:
            if key not in batch:
                seen = sorted(k for k in batch if k.startswith("observation"))
                raise GetiactionError(
                    f"there is no {key!r} among the observations: the policy was made for "
                    f"{', '.join(self._needed)}; it got {', '.join(seen) or 'none'}"
                )
            if batch[key].dtype == torch.uint8:
                batch[key] = batch[key].to(dtype=torch.float32) / 255.0
        prepared: Batch = self.preprocessor(batch)
        return prepared

    def on_train_start(self) -> None:
        """List the policy's modules: checking their mode is faster than setting it."""
        self._modules_to_train = tuple(self.lerobot_policy.modules())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        prepared = self.prepare_batch(batch)
        if not self._modules_to_train or not all(m.training for m in self._modules_to_train):
            self.lerobot_policy.train()
        loss, parts = self.loss_and_parts(prepared)
        if self._logs_now():
            self.log("train/loss", loss.detach(), prog_bar=True)
            for name, value in parts.items():
                if name != "loss" and (number := _number(value)) is not None:
                    self.log(f"train/{name}", number)
        return loss

    def held_out_loss(self, batch: Batch) -> Tensor:
        """Return the loss, a 0-dim tensor, of a batch of held-out episodes."""
        with without_trace(self.lerobot_policy):
            loss: Tensor = self(self.prepare_batch(batch))
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimizer of the policy's own parameter groups, and its schedule."""
        try:
            optimizer = self.optimizer_config.build(self.lerobot_policy.get_optim_params())
        except ValueError as error:
            raise GetiactionError(
                f"policy {self.config.type!r} cannot be optimized: {printable(error)}"
            ) from error
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise GetiactionError(f"policy {self.config.type!r} needs several optimizers at once")
        _step_over_lists(optimizer)
        if self.scheduler_config is None:
            return optimizer
        steps = self.total_steps or int(self.trainer.estimated_stepping_batches)
        schedule = self.scheduler_config.build(optimizer, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as LeRobot does: the norm is summed in the order of ``policy.parameters()``.

        Lightning's own clipping sums in the optimizer's group order, which differs in the last bit.
        If the norm is within the limit, torch would multiply all gradients by 1. On a CPU that is
        skipped; on a GPU the check would need a synchronisation.
        """
        limit = self.optimizer_config.grad_clip_norm or float("inf")
        if gradient_clip_val is not None:
            limit = gradient_clip_val
        weights = [w for w in self.lerobot_policy.parameters() if w.grad is not None]
        self.grad_norm = norm = get_total_norm([w.grad for w in weights])
        if norm.device.type != "cpu" or not limit / (norm + 1e-6) >= 1:
            clip_grads_with_norm_(weights, limit, norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimizer, then let the policy update its own buffers, if it has any."""
        super().optimizer_step(*args, **kwargs)
        if hasattr(self.lerobot_policy, "update"):
            self.lerobot_policy.update()

    def select_action(self, observation: Batch) -> Tensor:
        """Return the next action (B, A) in the dataset's units, on the CPU.

        Raises:
            GetiactionError: a camera or state that the policy was trained with is missing.
        """
        return self._act(lambda native, batch: native.select_action(batch), observation)

    def predict_action_chunk(self, observation: Batch) -> Tensor:
        """Return the planned actions (B, T, A) in the dataset's units, on the CPU.

        A batch of a dataset, with its time axis, contains its own history. A single observation is
        taken as the next one of the present episode, and is not added to its history.
        """
        return self._act(plan, observation)

    @torch.no_grad()
    def _act(self, method: Any, observation: Batch) -> Tensor:
        if self.lerobot_policy is None:
            raise GetiactionError("the policy cannot act before it was made or loaded")
        self.lerobot_policy.eval()
        batch = self.prepare_batch(dict(observation))
        action: Tensor = self.postprocessor(method(self.lerobot_policy, batch))
        return action

    def reset(self) -> None:
        """Empty the action queue and the observation history."""
        self.lerobot_policy.reset()

    def session(self) -> Self:
        """Return a policy that shares the weights and has its own queues."""
        twin = copy.copy(self)
        # A shallow copy of a module shares its dict of submodules; the copy gets its own one.
        twin._modules = dict(self._modules)
        twin.lerobot_policy = with_own_memory(self.lerobot_policy)
        twin.reset()
        return twin

    def _logs_now(self) -> bool:
        # Logging each step costs more than a small policy's preprocessing.
        trainer: Any = self._trainer
        every: int = getattr(trainer, "log_every_n_steps", 0)
        return every > 0 and ((trainer.global_step + 1) % every == 0 or trainer.is_last_batch)


def _step_over_lists(optimizer: torch.optim.Optimizer) -> None:
    """Enable torch's ``foreach`` optimizers on a CPU too, as by default on a GPU.

    Stepping weight by weight is slower and gives the same numbers.
    """
    for group in optimizer.param_groups:
        undecided = group.get("foreach", True) is None and not group.get("fused")
        if undecided and all(weight.device.type == "cpu" for weight in group["params"]):
            group["foreach"] = True


def _number(value: Any) -> float | Tensor | None:
    """Return what can be logged as one number, or None."""
    if isinstance(value, Tensor):
        return value.detach().float() if value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) else None
