"""The one adapter between LeRobot's policies and Lightning."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.utils.constants import ACTION
from lerobot.utils.feature_utils import dataset_to_policy_features
from torch import Tensor

from getiaction.errors import GetiactionError
from getiaction.policies.base import Batch, Policy
from getiaction.policies.lerobot.configs import normalise_environment_state, policy_config


class LeRobotPolicy(Policy):
    """Any LeRobot policy under a Lightning Trainer, trained as ``lerobot-train`` trains it.

    The network and its processors need the dataset's features and statistics; they are made in
    ``setup`` from the data module, or at once by :meth:`create`.

    Args:
        policy_name: A name in LeRobot's registry.
        config: A finished LeRobot config, instead of a name and fields.
        config_kwargs: Fields of LeRobot's config; the same as further keywords.
        optimizer: Replaces the policy's optimizer preset.
        scheduler: Replaces the policy's learning-rate schedule preset.
        total_steps: Length of the schedule; what the trainer estimates unless given.
        **fields: Fields of LeRobot's config, e.g. ``chunk_size=20``.
    """

    lerobot_policy: Any
    preprocessor: Any
    postprocessor: Any

    def __init__(
        self,
        policy_name: str = "act",
        *,
        config: PreTrainedConfig | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        optimizer: OptimizerConfig | None = None,
        scheduler: LRSchedulerConfig | None = None,
        total_steps: int | None = None,
        **fields: Any,
    ) -> None:
        super().__init__()
        given = {**(config_kwargs or {}), **fields}
        if config is not None and given:
            raise GetiactionError(f"give either a config or its fields, not both: {list(given)}")
        self.config: Any = config or policy_config(policy_name, given)
        self.optimizer_config: OptimizerConfig = optimizer or self.config.get_optimizer_preset()
        self.scheduler_config: LRSchedulerConfig | None = (
            scheduler or self.config.get_scheduler_preset()
        )
        self.total_steps = total_steps
        self.lerobot_policy = None
        self.grad_norm: Tensor | None = None

    def create(self, meta: Any, *, device: str = "cpu", pretrained: Path | None = None) -> Self:
        """Make the network and its processors.

        Args:
            meta: LeRobot's metadata of the dataset: features and statistics.
            device: Where the network lives.
            pretrained: A native checkpoint's ``pretrained_model`` to take weights and processors
                from, instead of beginning anew.

        Raises:
            GetiactionError: the dataset lacks what the policy needs, or pretrained weights of its
                vision backbone cannot be had.
        """
        features = dataset_to_policy_features(meta.features)
        if ACTION not in features:
            raise GetiactionError(f"the dataset has no {ACTION!r}; it has: {', '.join(features)}")
        # LeRobot passes a feature without statistics on as it is, without a word.
        bare = [name for name in features if name not in (meta.stats or {})]
        if bare:
            raise GetiactionError(f"the dataset has no statistics of: {', '.join(bare)}")
        normalise_environment_state(self.config, features)
        self.config.device = device
        self.config.pretrained_path = pretrained
        try:
            self.lerobot_policy = make_policy(cfg=self.config, ds_meta=meta)
            self.preprocessor, self.postprocessor = self._processors(meta)
        except ValueError as error:
            raise GetiactionError(
                f"policy {self.config.type!r} cannot be made for this dataset: {error}"
            ) from error
        except OSError as error:
            weights = getattr(self.config, "pretrained_backbone_weights", None)
            if weights is None or pretrained is not None:
                raise
            raise GetiactionError(
                f"the backbone weights {weights} could not be downloaded ({error}); put them into "
                f"{torch.hub.get_dir()}/checkpoints, or train the backbone from scratch with "
                "--policy.pretrained_backbone_weights=None"
            ) from error
        finally:
            # A run that goes on is the same run: its config says the same as before.
            self.config.pretrained_path = None
        # A loaded policy comes in evaluation mode.
        self.lerobot_policy.train()
        return self

    def _processors(self, meta: Any) -> tuple[Any, Any]:
        if self.config.pretrained_path is None:
            made: tuple[Any, Any] = make_pre_post_processors(
                policy_cfg=self.config, dataset_stats=meta.stats
            )
            return made
        # The statistics saved with the weights are the ones that the weights were trained on.
        loaded: tuple[Any, Any] = make_pre_post_processors(
            policy_cfg=self.config,
            pretrained_path=str(self.config.pretrained_path),
            preprocessor_overrides={"device_processor": {"device": self.config.device}},
        )
        return loaded

    def setup(self, stage: str) -> None:
        """Make the network, if it is not there yet, for the data module's dataset."""
        if self.lerobot_policy is None:
            data: Any = getattr(self.trainer, "datamodule", None)
            if data is None or not hasattr(data, "meta"):
                raise GetiactionError(
                    "the policy needs a dataset's features and statistics; fit it with a "
                    "LeRobotDataModule, or call create(meta)"
                )
            self.create(data.meta, device=self.trainer.strategy.root_device.type)

    def forward(self, batch: Batch) -> Tensor:
        """Return the policy's loss, a 0-dim tensor, for a preprocessed training batch."""
        output: Any = self.lerobot_policy.forward(batch)
        loss = output[0] if isinstance(output, tuple) else output
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            raise GetiactionError(
                f"policy {self.config.type!r} gives no loss that can be trained on from a dataset"
            )
        return loss

    def prepare_batch(self, batch: Batch) -> Batch:
        """Turn a collated batch of the dataset into what the policy takes.

        Camera frames become float32 in [0, 1]; the preprocessor moves and normalises.
        """
        for key in self.config.image_features:
            if key in batch and batch[key].dtype == torch.uint8:
                batch[key] = batch[key].to(dtype=torch.float32) / 255.0
        prepared: Batch = self.preprocessor(batch)
        return prepared

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        prepared = self.prepare_batch(batch)
        self.lerobot_policy.train()
        loss: Tensor = self(prepared)
        if self._logs_now():
            self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val/loss``, the mean of the batches' losses in evaluation mode."""
        loss: Tensor = self(self.prepare_batch(batch))
        self.log("val/loss", loss, batch_size=len(batch["index"]))

    def configure_optimizers(self) -> Any:
        """The policy's own parameter groups under its optimizer and schedule."""
        optimizer = self.optimizer_config.build(self.lerobot_policy.get_optim_params())
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise GetiactionError(f"policy {self.config.type!r} needs several optimizers at once")
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
        """
        limit = self.optimizer_config.grad_clip_norm or float("inf")
        if gradient_clip_val is not None:
            limit = gradient_clip_val
        self.grad_norm = torch.nn.utils.clip_grad_norm_(self.lerobot_policy.parameters(), limit)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimizer, then let the policy update its own buffers, if it has any."""
        super().optimizer_step(*args, **kwargs)
        if hasattr(self.lerobot_policy, "update"):
            self.lerobot_policy.update()

    def select_action(self, observation: Batch) -> Tensor:
        """Return the next action (B, A) in the dataset's units, on the CPU."""
        return self._act(self.lerobot_policy.select_action, observation)

    def predict_action_chunk(self, observation: Batch) -> Tensor:
        """Return the planned actions (B, T, A) in the dataset's units, on the CPU."""
        return self._act(self.lerobot_policy.predict_action_chunk, observation)

    @torch.no_grad()
    def _act(self, method: Any, observation: Batch) -> Tensor:
        self.lerobot_policy.eval()
        action: Tensor = self.postprocessor(method(self.prepare_batch(dict(observation))))
        return action

    def reset(self) -> None:
        """Empty the action queue and the observation history."""
        self.lerobot_policy.reset()

    def session(self) -> "LeRobotPolicy":
        """Return a policy that shares the weights and has queues of its own."""
        twin = copy.copy(self)
        # A shallow copy of a module shares its tables of submodules; the policy is put into a
        # table of the twin's own.
        twin._modules = dict(self._modules)
        twin.lerobot_policy = _with_own_memory(self.lerobot_policy)
        twin.reset()
        return twin

    def _logs_now(self) -> bool:
        # Logging each step costs more than a small policy's preprocessing.
        every: int = getattr(self.trainer, "log_every_n_steps", 0)
        return every > 0 and (self.trainer.global_step + 1) % every == 0

    def save_pretrained(self, directory: str | Path) -> None:
        """Write LeRobot's ``pretrained_model`` files: config, weights and both processors."""
        if self.lerobot_policy is None:
            raise GetiactionError("there is nothing to save before the policy was made")
        self.lerobot_policy.save_pretrained(directory)
        self.preprocessor.save_pretrained(directory)
        self.postprocessor.save_pretrained(directory)


def _with_own_memory(policy: Any) -> Any:
    """Return a shallow copy whose ``reset`` leaves the original's memory alone."""
    twin = copy.copy(policy)
    for name, value in vars(policy).items():
        # E.g. ACT's temporal ensembler, a plain object that reset() empties in place.
        if hasattr(value, "reset") and not isinstance(value, torch.nn.Module):
            setattr(twin, name, copy.copy(value))
    return twin
