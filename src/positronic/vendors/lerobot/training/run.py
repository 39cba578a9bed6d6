"""Training run behind the command line; importing it imports torch, LeRobot and Lightning."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig, LRSchedulerConfig
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from lerobot.utils.random_utils import set_seed
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tqdm import tqdm

from foundation.console import say_made, say_next
from foundation.errors import MissingDependency, UsageError
from foundation.stopping import Stopped, StopSignals
from getiaction.data import LeRobotDataModule
from getiaction.data.frame_cache import CacheLimits
from getiaction.policies.lerobot import LeRobotPolicy, policy_config
from getiaction.policies.safety import SELF_CONTAINED
from getiaction.train import NativeCheckpoint, NativeResume, StepReport, Trainer, precision_of
from getiaction.train.callbacks import GymEvaluation, StopOnSignal
from positronic import simulator
from positronic.codec import Contract, LeRobotFeatures
from positronic.vendors.lerobot.serving.backends import examples
from positronic.vendors.lerobot.training.effective import (
    keep,
    provenance,
    settings,
    sign,
    with_recordings,
)
from positronic.vendors.lerobot.training.job import TrainingJob, in_first_process, machines
from positronic.vendors.lerobot.training.same_run import require_same_run

WANDB_PROJECT = "lerobot-train"
WANDB_KEY = "WANDB_API_KEY"


GIB = 1 << 30


def loggers(run_dir: Path, *, wandb: str, step: int, settings: Mapping[str, Any]) -> list[Logger]:
    """Open the loggers of a run; a resumed run appends to its curves.

    Args:
        run_dir: Directory for ``tensorboard`` and ``wandb``; its name is the run's.
        wandb: ``auto``, ``online``, ``offline`` or ``off``.
        step: Step at which the run begins; later points of earlier starts are purged.
        settings: The run's settings, for WandB.

    Raises:
        MissingDependency: WandB is asked for and not installed.
    """
    # Nothing is created here: every process calls this, and only the first claims the name.
    purge: dict[str, Any] = {"purge_step": step + 1} if step else {}
    sinks: list[Logger] = [TensorBoardLogger(run_dir, name="", version="tensorboard", **purge)]
    if wandb == "auto":
        wandb = "online" if os.environ.get(WANDB_KEY) else "off"
    if wandb != "off":
        sinks.append(_wandb(run_dir, offline=wandb == "offline", settings=settings))
    return sinks


def finish(sinks: Iterable[Logger]) -> None:
    """Let WandB flush its data, before the run's files are published."""
    for sink in sinks:
        end = getattr(getattr(sink, "experiment", None), "finish", None)
        # Processes other than the first have a dummy that has any attribute.
        if end is not None and "wandb" in sys.modules:
            end()
            # WandB's own process writes the file; it is complete when that process has ended.
            sys.modules["wandb"].teardown()


def _wandb(run_dir: Path, *, offline: bool, settings: Mapping[str, Any]) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    try:
        sink = WandbLogger(
            project=WANDB_PROJECT,
            name=run_dir.name,
            id=run_dir.name,
            save_dir=run_dir,
            offline=offline,
            resume=None if offline else "allow",
            config=dict(settings),
        )
    except ModuleNotFoundError as error:
        raise MissingDependency("--wandb needs WandB: pip install wandb, or --wandb=off") from error
    if offline and in_first_process():
        print(
            f"WandB: offline; `wandb sync {run_dir}/wandb/offline-run-*` uploads", file=sys.stderr
        )
    return sink


def gym(name: str, contract: Contract) -> Any:
    """Return the environment for the rollouts of `getiaction`'s data module.

    Args:
        name: One of this project's environments, with the dataset's codec and rate; or another
            package's Gymnasium id, whose observations are the dataset's features already.
        contract: The dataset's.

    Raises:
        UsageError: there is no such environment, or the codec is not for one of this project's.
    """
    if "/" in name and not name.startswith("positronic/"):
        return name
    name = simulator.env_id(name)
    codec = contract.make_codec()
    if isinstance(codec, LeRobotFeatures):
        raise UsageError(
            f"--eval_env={name} needs a dataset with a codec, as `positronic-to-lerobot "
            "convert` writes it, or its --codec"
        )
    from positronic.vendors.lerobot.gym import CodecGym

    return CodecGym(name, codec, control_fps=round(contract.fps))


def run(job: TrainingJob, signals: StopSignals) -> int:
    """Run a training job; returns the exit status once the last checkpoint is published.

    Args:
        job: The run.
        signals: Handles SIGTERM and Ctrl-C; after either, the run ends with a checkpoint.
    """
    _show_log()
    options = job.options
    device = choose_device(options.device)
    config = policy_config(options.policy.name, options.policy.fields)
    precision = choose_precision(options.precision, config, device)
    data = _data(job)
    set_seed(options.seed)
    module = LeRobotPolicy(
        config=config,
        scheduler=_schedule(options.policy.warmup_steps),
        total_steps=options.steps,
    )
    resume = _resumption(job)
    step = 0 if resume is None else resume.step
    pretrained = None if resume is None else resume.checkpoint / PRETRAINED_MODEL_DIR
    module.create(data.meta, device=device, pretrained=pretrained)
    if resume is not None:
        require_same_run(job, resume.checkpoint, config, data)
    if options.compile:
        compile_forward(module.lerobot_policy)
    contract = complete(job.contract, config)
    # Before the run's directory is made, so that an unusable dataset or optimizer leaves none
    # behind.
    data.prepare(config)
    module.configure_optimizers()
    _announce(job, module, data, f"{device}, {precision}")
    kept = settings(options, config)
    made_by = provenance(job, data.meta, step, device, precision, held_out=data.split()[1])
    if in_first_process():
        if not options.resume:
            job.run.begin()
        made_by = keep(job.run_dir, kept, made_by)
    made_by = with_recordings(made_by, job.dataset_root, data.split()[0])
    stop = StopOnSignal(signals)
    trainer = Trainer(
        max_steps=options.steps,
        max_epochs=-1,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=options.devices // machines(),
        num_nodes=machines(),
        precision=precision,
        accumulate_grad_batches=options.accumulate,
        callbacks=[
            *_callbacks(job, data, resume, _additions(contract, made_by, data, config)),
            _SameBeginning(step),
            stop,
        ],
        logger=loggers(job.run_dir, wandb=options.wandb, step=step, settings=kept),
        log_every_n_steps=options.log_freq,
        # Counted in batches, across epochs.
        val_check_interval=job.eval_freq * options.accumulate,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if options.evaluates else 0,
        # Done by the callbacks and the log lines above.
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=job.run_dir,
    )
    begun = time.monotonic()
    try:
        with _publishing(job), warnings.catch_warnings():
            _ignore_foreign_warnings()
            trainer.fit(module, datamodule=data)
            finish(trainer.loggers)
    except Stopped as stopped:
        if stop.saved is None:
            raise
        if trainer.global_step < options.steps:
            _say(
                f"{stopped.signal.name}: ended after step {trainer.global_step}, saved as "
                f"{job.run.place}/checkpoints/{Path(stop.saved).name}; the same command with "
                "--resume=True goes on"
            )
            return 128 + stopped.signal
    _say(f"trained {options.steps - step} steps in {time.monotonic() - begun:.0f} s")
    if in_first_process():
        _lead_on(job.run.place, config.type)
    return 0


def _lead_on(run: str, policy: str) -> None:
    """Print what was made, and the commands that show and serve it."""
    say_made("checkpoint", f"{run}/checkpoints/last", sys.stderr)
    say_next("tensorboard", f"--logdir={run}/tensorboard", label="curves", stream=sys.stderr)
    trust = [] if policy in SELF_CONTAINED else ["--trust_checkpoint=True"]
    server = ("python", "-m", "positronic.vendors.lerobot.server")
    say_next(*server, f"--checkpoints_dir={run}", *trust, stream=sys.stderr)


def choose_device(asked: str) -> str:
    """Return ``cuda`` or ``cpu``; refuse CUDA if there is none."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UsageError("--device=cuda, but torch finds no CUDA device; use --device=cpu")
    return "cuda" if available and asked != "cpu" else "cpu"


def choose_precision(asked: str | None, config: PreTrainedConfig, device: str) -> str:
    """Return Lightning's ``precision``: as requested, or that of the policy's config."""
    if asked == "16-mixed" and device == "cpu":
        raise UsageError("--precision=16-mixed needs a GPU; on a CPU give bf16-mixed or 32-true")
    return asked or precision_of(config, device)


def compile_forward(policy: Any) -> None:
    """Compile the policy's forward pass; the names of its weights stay."""
    # It logs at length every graph break where LeRobot reads a number.
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    policy.forward = torch.compile(policy.forward)


def complete(contract: Contract, config: PreTrainedConfig) -> Contract:
    """Add the policy's chunk sizes to the dataset's contract."""
    return contract.replace(
        chunk_size=getattr(config, "chunk_size", None),
        n_action_steps=getattr(config, "n_action_steps", None),
    )


def _data(job: TrainingJob) -> LeRobotDataModule:
    options = job.options
    return LeRobotDataModule(
        root=job.dataset_root,
        train_batch_size=job.batch_size,
        num_workers="auto" if options.num_workers is None else options.num_workers,
        seed=options.seed,
        cache=options.cache,
        cache_limits=_limits(options.cache_gib),
        val_split=options.val_split,
        val_gyms=None if options.eval_env is None else gym(options.eval_env, job.contract),
        num_rollouts_val=options.eval_episodes,
    )


def _limits(gib: float | None) -> CacheLimits:
    return CacheLimits() if gib is None else CacheLimits(int(gib * GIB), int(gib * GIB))


def _publishing(job: TrainingJob) -> AbstractContextManager[None]:
    return job.run.publishing() if in_first_process() else nullcontext()


def _resumption(job: TrainingJob) -> NativeResume | None:
    if job.resume_from is None:
        return None
    resume = NativeResume(job.resume_from)
    if resume.step >= job.options.steps:
        raise UsageError(f"{job.run.place} is at step {resume.step} already; give a larger --steps")
    return resume


def _callbacks(
    job: TrainingJob,
    data: LeRobotDataModule,
    resume: NativeResume | None,
    complete: Callable[[Path], None],
) -> list[Callback]:
    options = job.options
    found: list[Callback] = [] if resume is None else [resume]
    found.append(
        NativeCheckpoint(
            job.run_dir,
            total_steps=options.steps,
            save_freq=options.save_freq,
            complete=complete,
            saved=job.run.saved,
            dataset_root=options.dataset_root,
        )
    )
    if options.eval_env is not None:
        found.append(GymEvaluation())
    found.append(
        StepReport(
            total_steps=options.steps,
            log_freq=options.log_freq,
            remedy=f"raise --num_workers (now {data.num_workers}) or see --cache",
        )
    )
    return found


def _additions(
    contract: Contract,
    made_by: Mapping[str, Any],
    data: LeRobotDataModule,
    config: PreTrainedConfig,
) -> Callable[[Path], None]:
    """Return a function that writes this project's files into a checkpoint."""

    def add(pretrained_model: Path) -> None:
        contract.save(pretrained_model)
        sign(pretrained_model, made_by)
        examples.save(pretrained_model, data.train_dataset, config.input_features)

    return add


def _schedule(warmup_steps: int | None) -> LRSchedulerConfig | None:
    if warmup_steps is None:
        return None
    return CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=warmup_steps)


def _announce(job: TrainingJob, module: LeRobotPolicy, data: LeRobotDataModule, how: str) -> None:
    weights = sum(p.numel() for p in module.lerobot_policy.parameters())
    threads = f", {torch.get_num_threads()} threads" if how.startswith("cpu") else ""
    train, held_out = data.split()
    kept = f", {_extent(data.val_dataset, held_out)} held out" if held_out else ""
    _say(
        f"training {job.options.policy.name} ({weights / 1e6:.1f} M weights) on "
        f"{_extent(data.train_dataset, train)}{kept}, batch {job.batch_size}, {how}{threads}"
    )


def _extent(opened: Any, episodes: list[int]) -> str:
    plural = "" if len(episodes) == 1 else "s"
    return f"{len(opened)} frames of {len(episodes)} episode{plural}"


def _say(line: str) -> None:
    if in_first_process():
        print(line, file=sys.stderr, flush=True)


class _SameBeginning(Callback):
    """Refuses processes that would start at different steps, as without a shared directory."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Compare the step with the first process's."""
        first = trainer.strategy.broadcast(self.step)
        if trainer.strategy.reduce_boolean_decision(first != self.step, all=False):
            raise UsageError(
                f"process {trainer.global_rank} begins at step {self.step} and the first one at "
                f"{first}; give an --output_dir that all machines see, such as s3://bucket/path"
            )


class _AboveTheBar(logging.Handler):
    """Prints to stderr without breaking a progress bar there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        tqdm.write(self.format(record), file=sys.stderr)


def _show_log() -> None:
    """Print getiaction's log once and unformatted, whatever the root logger does."""
    log = logging.getLogger("getiaction")
    log.setLevel(logging.INFO if in_first_process() else logging.WARNING)
    if not log.handlers:
        log.addHandler(_AboveTheBar())
        log.propagate = False


def _ignore_foreign_warnings() -> None:
    """Ignore warnings of libraries that the user cannot act on."""
    for module in ("lightning", "torch", "lerobot", "tensorboard", "wandb"):
        warnings.filterwarnings("ignore", module=rf"{module}\b")
