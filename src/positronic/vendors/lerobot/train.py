"""``python -m positronic.vendors.lerobot.train``: from a converted dataset to checkpoints.

Everything that can be refused is refused here, before torch is imported; the training itself is in
:mod:`positronic.vendors.lerobot.training`.
"""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import configuronic as cfn

from positronic.codec import Contract
from positronic.errors import CheckpointError, StorageError, UsageError
from positronic.vendors.lerobot import config_file, presets
from positronic.vendors.lerobot.checkpoints import CheckpointDirectory
from positronic.vendors.lerobot.job import TrainingJob, in_first_process
from positronic.vendors.lerobot.options import Options
from positronic.vendors.lerobot.preflight import DATASET_CONTRACT, dataset_contract

PROG = "python -m positronic.vendors.lerobot.train"
# What a checkpoint must have to go on from it.
NEEDED = (
    "pretrained_model/config.json",
    "pretrained_model/model.safetensors",
    "pretrained_model/train_config.json",
    "training_state/training_step.json",
    "training_state/optimizer_state.safetensors",
    "training_state/rng_state.safetensors",
)


def _train(**flags: Any) -> None:
    options = Options(**flags).settled()
    if options.config is not None:
        _settle_threads()
        from positronic.vendors.lerobot.effective import settings

        print(config_file.dump(settings(options)), end="")
        return
    root = _local(options.dataset_root, "dataset_root")
    run_dir = _local(options.output_dir, "output_dir") / options.run_name
    if not options.resume and in_first_process():
        _require_fresh(run_dir)
    contract = dataset_contract(root, options.codec)
    job = TrainingJob(
        options=options,
        dataset_root=root,
        run_dir=run_dir,
        contract=contract,
        resume_from=_resume_point(run_dir, contract) if options.resume else None,
    )
    _settle_threads()
    from positronic.vendors.lerobot.training import run

    run(job)


_train.__doc__ = Options.__doc__
_train.__signature__ = inspect.signature(Options)  # type: ignore[attr-defined]
train = cfn.Config(_train, policy=presets.act)


def _settle_threads() -> None:
    """Keep OpenMP's idle threads from spinning; must happen before torch is imported.

    Beside one other busy process spinning made a step on two cores three to ten times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _local(path: str, flag: str) -> Path:
    if path.startswith("s3://"):
        raise UsageError(f"--{flag}={path}: s3:// is not supported yet; give a local directory")
    return Path(path).expanduser()


def _require_fresh(run_dir: Path) -> None:
    if run_dir.exists():
        raise StorageError(
            f"{run_dir} exists already; choose another --run_name, or go on with --resume=True"
        )


def _resume_point(run_dir: Path, contract: Contract | None) -> Path:
    """The newest whole checkpoint of the run; refuses what was trained on something else."""
    checkpoints = run_dir / "checkpoints"
    names = CheckpointDirectory(run_dir).ids() if checkpoints.is_dir() else []
    whole = [name for name in names if all((checkpoints / name / f).is_file() for f in NEEDED)]
    if not whole:
        raise CheckpointError(
            f"there is nothing to resume: {run_dir} has no whole checkpoint; begin a run without "
            "--resume, under another --run_name if this directory exists"
        )
    pretrained = checkpoints / whole[-1] / "pretrained_model"
    saved = pretrained / DATASET_CONTRACT.name
    if contract is not None and saved.is_file():
        Contract.load(saved).require_same(
            contract, f"checkpoint {pretrained.parent}", "the dataset to go on with"
        )
    return pretrained.parent


def status(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    from positronic import cli

    return cli.status(train, PROG, argv, prepare=config_file.prepare)


def main() -> None:
    """Run the command line."""
    from positronic.cli import run

    run(train, PROG, prepare=config_file.prepare)


if __name__ == "__main__":
    main()
