"""Lightning Trainer with settings that reproduce LeRobot's training."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import torch
from lightning.pytorch import Callback
from lightning.pytorch import Trainer as LightningsTrainer
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar

from foundation.writable import describe, require_writable
from getiaction.errors import GetiactionError
from getiaction.train.base import BaseTrainer
from getiaction.train.callbacks.monitors import MonitorCheck, maximise_success
from getiaction.train.exact_resume import ExactResume
from getiaction.train.precision import precision_plugin
from getiaction.train.progress import progress_bar
from getiaction.train.publishable import require_finite

# Lightning advises more worker processes; batches gathered in memory need none.
NEEDS_NO_WORKERS = ".*does not have many workers.*"
# The loop is limited by steps, as LeRobot's; the number of epochs follows.
UNBOUNDED = ".*`max_epochs` was not set.*"
# Held-out episodes are optional.
NOTHING_HELD_OUT = ".*Total length of `list` across ranks is zero.*"
NO_VALIDATION = ".*defined a `validation_step` but have no `val_dataloader`.*"
# The summary counts weights; it need not know their precision.
SUMMARY_PRECISION = ".*is not supported by the model summary.*"
# The losses of each epoch's last step are logged all the same.
FEWER_THAN_LOGGED = ".*is smaller than the logging interval.*"
# Lightning 2.6 uses an API that torch 2.11 deprecates.
LEAF_SPEC = r".*isinstance\(treespec, LeafSpec\).*"
FOREIGN_NOISE = (
    NEEDS_NO_WORKERS,
    UNBOUNDED,
    NOTHING_HELD_OUT,
    NO_VALIDATION,
    SUMMARY_PRECISION,
    FEWER_THAN_LOGGED,
    LEAF_SPEC,
)

# LeRobot's DDP allows weights without gradients in a step, e.g. of policies with branches.
DDP_AS_LEROBOT = {
    "ddp": "ddp_find_unused_parameters_true",
    "ddp_spawn": "ddp_spawn_find_unused_parameters_true",
}


class Trainer(LightningsTrainer, BaseTrainer):
    """Lightning's Trainer with other defaults.

    The sampler shards itself; sanity checks, which would use random numbers, are off; the GPU has
    the settings of ``lerobot-train``. Checkpoints contain the random state, so that a resumed run
    equals an uninterrupted one. Checkpoint and early-stopping callbacks that monitor success or
    reward use the mode ``max``, whatever Lightning's default is.

    Args:
        experiment_name: Subdirectory of ``default_root_dir`` for all output.
        default_root_dir: Directory of logs and checkpoints; a path or URL.
        precision: ``32-true``, ``bf16-mixed``, ``16-mixed`` or another of Lightning's.
        accelerator: As Lightning's.
        devices: As Lightning's.
        strategy: As Lightning's; ``ddp`` allows weights without gradients, as LeRobot does.
        plugins: As Lightning's.
        num_sanity_val_steps: As Lightning's, but by default 0.
        use_distributed_sampler: As Lightning's, but by default False.
        benchmark: As Lightning's, but by default True.
        **kwargs: The rest of Lightning's arguments.

    Raises:
        GetiactionError: in ``fit``, a callback monitors a metric that is never logged.
    """

    #: All callbacks, including the Trainer's own.
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
        for handler in logging.getLogger("lightning").handlers:
            handler.addFilter(_unless_root_prints)
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
        maximise_success(self.callbacks)
        # As in lerobot-train; Lightning's default is off.
        torch.backends.cuda.matmul.allow_tf32 = True
        if not torch.cuda.is_available():
            # Otherwise torch searches for the driver's library at each step.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Run Lightning's ``fit``; Ctrl-C raises KeyboardInterrupt.

        At the end, losses, checkpoints and what can be done next are printed on stderr.

        Raises:
            OSError: the checkpoint directory is not writable; checked before training.
        """
        self._require_writable_dirs()
        _load_weights_only(kwargs)
        with _quiet():
            try:
                super().fit(*args, **kwargs)
            except SystemExit as stop:
                # Lightning converts it to exit status 1, like a failure.
                if isinstance(stop.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from stop
                raise
        if self.is_global_zero:
            self._print_what_was_made()

    def _print_what_was_made(self) -> None:
        paths = [path for each in self.checkpoint_callbacks if (path := _saved_by(each))]
        if not paths:
            return
        values = (
            f"{name} {self.callback_metrics[name]:.4g}"
            for name in ("train/loss", "val/loss")
            if name in self.callback_metrics
        )
        lines = [f"trained {self.global_step} steps: {', '.join(values) or 'no loss was logged'}"]
        lines += [*(f"checkpoint: {path}" for path in paths), f"next: {self.next_step(paths[0])}"]
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def next_step(self, checkpoint: str) -> str:
        """Return what to do with a checkpoint: a line of Python; a program may replace this."""
        return f"policy = LeRobotPolicy.load_from_checkpoint({checkpoint!r})"

    def save_checkpoint(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Run Lightning's ``save_checkpoint``, which ``ModelCheckpoint`` also uses.

        Raises:
            GetiactionError: a value in it is not finite, or it cannot be written; earlier
                checkpoints are kept.
        """
        kept = "checkpoints saved before are good"
        require_finite(self.lightning_module, self.optimizers, step=self.global_step, kept=kept)
        try:
            super().save_checkpoint(filepath, *args, **kwargs)
        except OSError as error:
            # After a failure Lightning's transaction stays open (fsspec 2026.2): all files that
            # this process writes through fsspec later, e.g. by Hugging Face datasets, would wait
            # for it.
            fsspec.core.url_to_fs(str(filepath))[0].transaction.complete(commit=False)
            raise GetiactionError(
                f"the checkpoint of step {self.global_step} could not be written to {filepath}: "
                f"{describe(error)}; {kept}"
            ) from error

    def _require_writable_dirs(self) -> None:
        if getattr(self, "fast_dev_run", False):  # saves nothing
            return
        logs = self.loggers[0].save_dir if self.loggers else None
        for callback in self.checkpoint_callbacks:
            directory = str(getattr(callback, "dirpath", None) or logs or self.default_root_dir)
            if "://" not in directory:
                require_writable(directory)

    def validate(self, *args: Any, **kwargs: Any) -> Any:
        """Run Lightning's ``validate``.

        Raises:
            GetiactionError: there is nothing to validate.
        """
        _load_weights_only(kwargs)
        with _quiet():
            results = super().validate(*args, **kwargs)
        if not sum(self.num_val_batches):
            raise GetiactionError(
                "there is nothing to validate: give the data module val_gyms for rollouts, or "
                "val_split for held-out episodes"
            )
        return results

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Run Lightning's ``test``.

        Raises:
            GetiactionError: there is nothing to test.
        """
        _load_weights_only(kwargs)
        with _quiet():
            results = super().test(*args, **kwargs)
        if not sum(self.num_test_batches):
            raise GetiactionError(
                "there is nothing to test: give the data module test_gyms for rollouts"
            )
        return results

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Run Lightning's ``predict``."""
        _load_weights_only(kwargs)
        with _quiet():
            return super().predict(*args, **kwargs)


def _unless_root_prints(record: logging.LogRecord) -> bool:
    """Return whether Lightning's handler prints a record: not if that of the root logger does."""
    return not logging.getLogger().handlers


def _saved_by(callback: Checkpoint) -> str:
    """Return the path of a ``ModelCheckpoint``'s best or else last checkpoint; empty if none."""
    paths = (getattr(callback, name, "") for name in ("best_model_path", "last_model_path"))
    found = next((str(path) for path in paths if path), "")
    local = os.path.relpath(found) if found and "://" not in found else found
    return found if local.startswith("..") else local


def _load_weights_only(kwargs: dict[str, Any]) -> None:
    """Default to ``weights_only``: Lightning would run code of a checkpoint from ``http://``."""
    if kwargs.get("weights_only") is None:
        kwargs["weights_only"] = True


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in FOREIGN_NOISE:
            warnings.filterwarnings("ignore", message)
        yield


def _run_dir(root: str | Path, experiment_name: str | None) -> str:
    # Not with Path, which would remove one slash of s3://.
    return os.path.join(root, experiment_name) if experiment_name else str(root)


def _strategy(strategy: Any, accelerator: Any, devices: Any, num_nodes: int) -> Any:
    if strategy == "auto" and _device_count(accelerator, devices) * num_nodes > 1:
        strategy = "ddp"
    return DDP_AS_LEROBOT.get(strategy, strategy) if isinstance(strategy, str) else strategy


def _device_count(accelerator: Any, devices: Any) -> int:
    """Number of devices that Lightning will use on this machine; 1 if unknown."""
    if isinstance(devices, str) and devices != "auto":
        devices = devices.split(",") if "," in devices else int(devices)
    if isinstance(devices, int) and devices > 0:
        return devices
    if isinstance(devices, Iterable) and not isinstance(devices, str):
        return len(list(devices))
    on_gpu = accelerator in ("auto", "gpu", "cuda")
    return max(torch.cuda.device_count(), 1) if on_gpu else 1


def _with_defaults(callbacks: list[Callback], settings: Mapping[str, Any]) -> list[Callback]:
    # Lightning prefers rich's progress bar if that package is installed, which prints nothing
    # without a terminal: the same run would have different output on another machine.
    defaults: list[tuple[type[Callback], Callable[[], Callback], bool]] = [
        (MonitorCheck, MonitorCheck, True),
        (ExactResume, ExactResume, True),
        (ProgressBar, progress_bar, settings.get("enable_progress_bar") is not False),
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
