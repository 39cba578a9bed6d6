"""Checkpoint callback in LeRobot's layout: each is written atomically, with a manifest."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lerobot.common.train_utils import (
    get_step_checkpoint_dir,
    save_checkpoint,
    should_save_checkpoint,
)
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.utils.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    PRETRAINED_MODEL_DIR,
    TRAINING_STATE_DIR,
)
from lightning.pytorch import Callback
from safetensors import SafetensorError

from foundation.files import sync
from foundation.manifest import UNFINISHED, seal
from foundation.text import printable
from foundation.writable import describe
from getiaction.errors import GetiactionError
from getiaction.train.publishable import require_finite

logger = logging.getLogger(__name__)

# In training_state, beside LeRobot's files: the loss scale of float16 training.
GRAD_SCALER = "grad_scaler.json"


class NativeCheckpoint(Callback):
    """Save as ``lerobot-train`` does, every ``save_freq`` steps and at the end.

    A checkpoint is written under a temporary name that readers ignore, gets a manifest of its
    files' digests, and is renamed when everything is flushed to the disk.

    Args:
        run_dir: Gets ``checkpoints/<step>/{pretrained_model,training_state}`` and the link
            ``checkpoints/last``.
        total_steps: The step at which training ends.
        save_freq: Steps between checkpoints; 0 saves at the end only.
        complete: Called with the temporary ``pretrained_model`` to add files to it.
        saved: Called with each finished checkpoint.
        dataset_root: The dataset's location in ``train_config.json``; by default the data module's
            directory, which for a dataset in S3 is a mirror.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        total_steps: int,
        save_freq: int,
        complete: Callable[[Path], None] | None = None,
        saved: Callable[[Path], None] | None = None,
        dataset_root: str | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.total_steps = total_steps
        self.save_freq = save_freq
        self.complete = complete
        self.saved = saved
        self.dataset_root = dataset_root
        self._saved_step: int | None = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a checkpoint is due at this step."""
        step = trainer.global_step
        if (
            trainer.is_global_zero
            and not trainer.fit_loop._should_accumulate()
            and should_save_checkpoint(step, self.save_freq, self.total_steps)
        ):
            self.save(trainer, pl_module, step)

    def save(self, trainer: Any, module: Any, step: int) -> Path:
        """Write the checkpoint of ``step``, unless already written, and return its directory.

        Raises:
            GetiactionError: a value in it is not finite, or it cannot be written; then nothing is
                left of it, and ``last`` is unchanged.
        """
        final: Path = get_step_checkpoint_dir(self.run_dir, self.total_steps, step)
        if step == self._saved_step:
            return final
        require_finite(module.lerobot_policy, trainer.optimizers, step=step, kept=self._kept())
        unfinished = final.with_name(f"{UNFINISHED}{final.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._write(trainer, module, step, unfinished)
            os.rename(unfinished, final)
            _link_last(final)
            sync(final.parent)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            why = describe(error) if isinstance(error, OSError) else printable(error)
            raise GetiactionError(
                f"the checkpoint of step {step} could not be written to {final}: {why}; "
                f"{self._kept()}"
            ) from error
        self._saved_step = step
        logger.info("saved %s", final)
        if self.saved is not None:
            self.saved(final)
        return final

    def _kept(self) -> str:
        last = self.run_dir / CHECKPOINTS_DIR / LAST_CHECKPOINT_LINK
        if not last.is_dir():
            return "no checkpoint has been saved yet"
        return f"the last good checkpoint is {last.resolve()}"

    def _write(self, trainer: Any, module: Any, step: int, unfinished: Path) -> None:
        """Write a complete checkpoint under the temporary name."""
        schedulers = trainer.lr_scheduler_configs
        save_checkpoint(
            unfinished,
            step=step,
            cfg=self._train_config(trainer, module),
            policy=module.lerobot_policy,
            optimizer=trainer.optimizers[0],
            scheduler=schedulers[0].scheduler if schedulers else None,
            preprocessor=module.preprocessor,
            postprocessor=module.postprocessor,
            num_processes=trainer.world_size,
            batch_size=trainer.datamodule.train_batch_size,
        )
        scaler = trainer.precision_plugin.state_dict()
        if scaler:
            (unfinished / TRAINING_STATE_DIR / GRAD_SCALER).write_text(json.dumps(scaler))
        if self.complete is not None:
            self.complete(unfinished / PRETRAINED_MODEL_DIR)
        seal(unfinished)

    def _train_config(self, trainer: Any, module: Any) -> TrainPipelineConfig:
        """The equivalent config of ``lerobot-train``, so that it can resume from here."""
        data = trainer.datamodule
        root = self.dataset_root or (None if data.root is None else str(data.root))
        return TrainPipelineConfig(
            dataset=DatasetConfig(
                repo_id=data.repo_id,
                root=root,
                episodes=data.episodes,
                use_imagenet_stats=data.use_imagenet_stats,
                eval_split=data.val_split,
                video_backend=data.video_backend,
            ),
            policy=module.config,
            output_dir=self.run_dir,
            job_name=self.run_dir.name,
            seed=data.seed,
            num_workers=data.num_workers,
            batch_size=data.train_batch_size,
            steps=self.total_steps,
            log_freq=trainer.log_every_n_steps,
            save_freq=self.save_freq,
            tolerance_s=data.tolerance_s,
            optimizer=module.optimizer_config,
            scheduler=module.scheduler_config,
        )


def _link_last(checkpoint: Path) -> None:
    """Atomically make ``last`` a relative symbolic link to ``checkpoint``."""
    link = checkpoint.with_name(LAST_CHECKPOINT_LINK)
    fresh = checkpoint.with_name(f"{UNFINISHED}{LAST_CHECKPOINT_LINK}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(checkpoint.name)
    os.replace(fresh, link)
