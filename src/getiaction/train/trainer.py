"""Lightning Trainer with the settings under which LeRobot's results hold."""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import torch
from lightning.pytorch import Callback
from lightning.pytorch import Trainer as LightningsTrainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, TQDMProgressBar

from foundation.writable import describe, require_writable
from getiaction.errors import GetiactionError
from getiaction.train.base import BaseTrainer
from getiaction.train.callbacks.monitors import MonitorCheck, look_upwards
from getiaction.train.exact_resume import ExactResume
from getiaction.train.precision import precision_plugin
from getiaction.train.publishable import require_finite

# Lightning advises more worker processes; batches gathered in memory need none.
NEEDS_NO_WORKERS = ".*does not have many workers.*"
# The loop is bounded by steps, as LeRobot's is; the number of epochs follows.
UNBOUNDED = ".*`max_epochs` was not set.*"
# Held-out episodes are optional.
NOTHING_HELD_OUT = ".*Total length of `list` across ranks is zero.*"
NO_VALIDATION = ".*defined a `validation_step` but have no `val_dataloader`.*"
# The summary counts weights; their precision is none of its business.
SUMMARY_PRECISION = ".*is not supported by the model summary.*"
# Lightning 2.6 asks torch 2.11 in a way that it has come to dislike.
LEAF_SPEC = r".*isinstance\(treespec, LeafSpec\).*"
FOREIGN_NOISE = (
    NEEDS_NO_WORKERS,
    UNBOUNDED,
    NOTHING_HELD_OUT,
    NO_VALIDATION,
    SUMMARY_PRECISION,
    LEAF_SPEC,
)

# LeRobot's DDP lets a step leave weights without gradients, as policies with branches do.
DDP_AS_LEROBOT = {
    "ddp": "ddp_find_unused_parameters_true",
    "ddp_spawn": "ddp_spawn_find_unused_parameters_true",
}


class Trainer(LightningsTrainer, BaseTrainer):
    """Lightning's Trainer; what it does not set here, it leaves as Lightning has it.

    The sampler shards itself, checks before training would draw random numbers, and the graphics
    card computes as ``lerobot-train`` lets it. Checkpoints hold the random state, so that a run
    that is resumed goes on as if it had not been stopped. A checkpoint or an early stop that
    watches success or reward looks for the largest value, whatever Lightning's default is.

    Args:
        experiment_name: Puts everything that is written into a directory of that name.
        default_root_dir: Where logs and checkpoints go; a path or URL.
        precision: ``32-true``, ``bf16-mixed``, ``16-mixed`` or any other that Lightning has.
        accelerator: As Lightning's.
        devices: As Lightning's.
        strategy: As Lightning's; ``ddp`` allows weights without gradients, as LeRobot does.
        plugins: As Lightning's.
        num_sanity_val_steps: As Lightning's, but none unless given.
        use_distributed_sampler: As Lightning's, but off unless given.
        benchmark: As Lightning's, but on unless given.
        **kwargs: The rest of Lightning's arguments.

    Raises:
        GetiactionError: while fitting, a callback watches a metric that nothing would log.
    """

    #: All of them, those that the Trainer itself brought included.
    callbacks: list[Callback]

    def __init__(
        self,
        *,
        experiment_name: str | None = None,
        default_root_dir: str | Path = "experiments",
        precision: Any = None,
        accelerator: Any = "auto",
        devices: Any = "auto",
        strategy: Any = "auto",
        plugins: Any = None,
        num_sanity_val_steps: int = 0,
        use_distributed_sampler: bool = False,
        benchmark: bool = True,
        callbacks: list[Callback] | Callback | None = None,
        **kwargs: Any,
    ) -> None:
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        ours = precision_plugin(precision, accelerator)
        if ours is not None:
            precision, plugins = None, [*_listed(plugins), ours]
        self.experiment_name = experiment_name
        super().__init__(
            default_root_dir=_run_dir(default_root_dir, experiment_name),
            precision=precision,
            accelerator=accelerator,
            devices=devices,
            strategy=_strategy(strategy, accelerator, devices, kwargs.get("num_nodes", 1)),
            plugins=plugins,
            num_sanity_val_steps=num_sanity_val_steps,
            use_distributed_sampler=use_distributed_sampler,
            benchmark=benchmark,
            callbacks=_with_defaults(_listed(callbacks), kwargs),
            **kwargs,
        )
        look_upwards(self.callbacks)
        # As lerobot-train; Lightning leaves it off.
        torch.backends.cuda.matmul.allow_tf32 = True
        if not torch.cuda.is_available():
            # Lightning lets torch look for the driver's library in this way, at each step anew.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Run Lightning's ``fit``; Ctrl-C arrives as KeyboardInterrupt.

        Raises:
            OSError: checkpoints could not be written where they are to go; said before training.
        """
        self._require_places()
        _read_as_data(kwargs)
        with _quiet():
            try:
                super().fit(*args, **kwargs)
            except SystemExit as stop:
                # Lightning makes exit status 1 of it, which a failure has as well.
                if isinstance(stop.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from stop
                raise

    def save_checkpoint(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Run Lightning's ``save_checkpoint``, by which its ``ModelCheckpoint`` saves as well.

        Raises:
            GetiactionError: a number in it is not finite, or it cannot be written; those that were
                saved before stay.
        """
        kept = "the checkpoints that were saved before are good"
        require_finite(self.lightning_module, self.optimizers, step=self.global_step, kept=kept)
        try:
            super().save_checkpoint(filepath, *args, **kwargs)
        except OSError as error:
            # Lightning's transaction stays open where it fails (fsspec 2026.2): all files that this
            # process would write through fsspec later, of Hugging Face's datasets say, would wait
            # for its end.
            fsspec.core.url_to_fs(str(filepath))[0].transaction.complete(commit=False)
            raise GetiactionError(
                f"the checkpoint of step {self.global_step} could not be written to {filepath}: "
                f"{describe(error)}; {kept}"
            ) from error

    def _require_places(self) -> None:
        if getattr(self, "fast_dev_run", False):  # which keeps nothing
            return
        logs = self.loggers[0].save_dir if self.loggers else None
        for callback in self.checkpoint_callbacks:
            place = str(getattr(callback, "dirpath", None) or logs or self.default_root_dir)
            if "://" not in place:
                require_writable(place)

    def validate(self, *args: Any, **kwargs: Any) -> Any:
        """Run Lightning's ``validate``.

        Raises:
            GetiactionError: there is nothing to validate.
        """
        _read_as_data(kwargs)
        with _quiet():
            results = super().validate(*args, **kwargs)
        if not sum(self.num_val_batches):
            raise GetiactionError(
                "there is nothing to validate: give the data module val_gyms to roll out in, or "
                "val_split to hold out episodes by"
            )
        return results

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Run Lightning's ``test``.

        Raises:
            GetiactionError: there is nothing to test.
        """
        _read_as_data(kwargs)
        with _quiet():
            results = super().test(*args, **kwargs)
        if not sum(self.num_test_batches):
            raise GetiactionError(
                "there is nothing to test: give the data module test_gyms to roll out in"
            )
        return results

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Run Lightning's ``predict``."""
        _read_as_data(kwargs)
        with _quiet():
            return super().predict(*args, **kwargs)


def _read_as_data(kwargs: dict[str, Any]) -> None:
    """Let a checkpoint hold nothing but data; Lightning runs code in one from ``http://``."""
    if kwargs.get("weights_only") is None:
        kwargs["weights_only"] = True


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in FOREIGN_NOISE:
            warnings.filterwarnings("ignore", message)
        yield


def _run_dir(root: str | Path, experiment_name: str | None) -> str:
    # Not through Path, which would take one slash off s3://.
    return os.path.join(root, experiment_name) if experiment_name else str(root)


def _strategy(strategy: Any, accelerator: Any, devices: Any, num_nodes: int) -> Any:
    if strategy == "auto" and _device_count(accelerator, devices) * num_nodes > 1:
        strategy = "ddp"
    return DDP_AS_LEROBOT.get(strategy, strategy) if isinstance(strategy, str) else strategy


def _device_count(accelerator: Any, devices: Any) -> int:
    """How many devices Lightning will use on this machine; 1 where that is its own to find out."""
    if isinstance(devices, str) and devices != "auto":
        devices = devices.split(",") if "," in devices else int(devices)
    if isinstance(devices, int) and devices > 0:
        return devices
    if isinstance(devices, Iterable) and not isinstance(devices, str):
        return len(list(devices))
    on_gpu = accelerator in ("auto", "gpu", "cuda")
    return max(torch.cuda.device_count(), 1) if on_gpu else 1


def _with_defaults(callbacks: list[Callback], settings: Mapping[str, Any]) -> list[Callback]:
    # Lightning chooses rich's bar where that package happens to be installed, which writes no lines
    # where nobody watches: the same run would tell another thing on another machine.
    defaults: list[tuple[type[Callback], type[Callback], bool]] = [
        (MonitorCheck, MonitorCheck, True),
        (ExactResume, ExactResume, True),
        (ProgressBar, TQDMProgressBar, settings.get("enable_progress_bar") is not False),
        (ModelSummary, ModelSummary, settings.get("enable_model_summary") is not False),
    ]
    return callbacks + [
        made()
        for kind, made, is_wanted in defaults
        if is_wanted and not any(isinstance(callback, kind) for callback in callbacks)
    ]


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, Iterable) else [given]
