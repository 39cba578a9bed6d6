"""``python -m positronic.vendors.lerobot.train``: from a converted dataset to checkpoints.

Everything that can be refused is refused here, before torch is imported; the training itself is in
:mod:`positronic.vendors.lerobot.training`.
"""

import json
import os
from pathlib import Path
from typing import Any

import configuronic as cfn

from getiaction.roots import require_dataset
from positronic.codec import Codec, Contract, stats_digest
from positronic.errors import CheckpointError, ContractError, StorageError, UsageError
from positronic.vendors.lerobot import presets
from positronic.vendors.lerobot.checkpoints import CheckpointDirectory
from positronic.vendors.lerobot.job import TrainingJob
from positronic.vendors.lerobot.presets import PolicyPreset

PROG = "python -m positronic.vendors.lerobot.train"
DEVICES = ("auto", "cpu", "cuda")
# What a checkpoint must have to go on from it.
NEEDED = (
    "pretrained_model/config.json",
    "pretrained_model/model.safetensors",
    "pretrained_model/train_config.json",
    "training_state/training_step.json",
    "training_state/optimizer_state.safetensors",
    "training_state/rng_state.safetensors",
)
DATASET_CONTRACT = Path("meta/contract.json")


@cfn.config(policy=presets.act)
def train(
    dataset_root: str,
    run_name: str,
    output_dir: str,
    policy: PolicyPreset,
    steps: int = 100_000,
    save_freq: int = 20_000,
    codec: Codec | None = None,
    resume: bool = False,
    batch_size: int | None = None,
    num_workers: int | None = None,
    seed: int = 1000,
    log_freq: int = 200,
    device: str = "auto",
) -> None:
    """Train a LeRobot policy on a converted dataset, with Lightning.

    Checkpoints appear in OUTPUT_DIR/RUN_NAME/checkpoints/STEP in LeRobot's layout, each as a whole
    or not at all, with the contract that the server checks. TensorBoard logs are in
    OUTPUT_DIR/RUN_NAME/tensorboard; with WANDB_API_KEY set, WandB gets them too.

    Args:
        dataset_root: what `positronic-to-lerobot convert` wrote.
        run_name: unique name of this run.
        output_dir: where the run's directory is made.
        policy: what to train: .act (full size), .act_state (small, no images, for a CPU) or
            .act_64px (small, 64x64 images, for a CPU).
        steps: training steps in total, those before a resume included.
        save_freq: steps between checkpoints; the last step is always saved.
        codec: refuse to train unless the dataset was converted with this codec.
        resume: go on from the newest checkpoint of this run.
        batch_size: samples a step; the policy's own unless given.
        num_workers: processes that load data; none are needed if the dataset fits in memory.
        seed: decides initial weights, the order of samples and dropout.
        log_freq: steps between lines of the log.
        device: auto, cpu or cuda.
    """
    _require_positive(steps=steps, batch_size=batch_size, log_freq=log_freq)
    for flag, count in (("save_freq", save_freq), ("num_workers", num_workers)):
        if count is not None and count < 0:
            raise UsageError(f"--{flag} is {count}; expected 0 or more")
    if device not in DEVICES:
        raise UsageError(f"--device is {device!r}; expected one of: {', '.join(DEVICES)}")
    root, output = _local(dataset_root, "dataset_root"), _local(output_dir, "output_dir")
    run_dir = output / run_name
    if not resume:
        _require_fresh(run_dir)
    contract = _dataset_contract(root, codec)
    job = TrainingJob(
        dataset_root=root,
        run_dir=run_dir,
        policy=policy,
        contract=contract,
        steps=steps,
        save_freq=save_freq,
        log_freq=log_freq,
        batch_size=policy.batch_size if batch_size is None else batch_size,
        num_workers=num_workers,
        seed=seed,
        device=device,
        resume_from=_resume_point(run_dir, contract) if resume else None,
    )
    settle_threads()
    from positronic.vendors.lerobot.training import run

    run(job)


def settle_threads() -> None:
    """Keep OpenMP's idle threads from spinning; must happen before torch is imported.

    Beside one other busy process spinning made a step on two cores three to ten times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _require_positive(**flags: int | None) -> None:
    for name, value in flags.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; expected at least 1")


def _local(path: str, flag: str) -> Path:
    if path.startswith("s3://"):
        raise UsageError(f"--{flag}={path}: s3:// is not supported yet; give a local directory")
    return Path(path).expanduser()


def _dataset_contract(root: Path, codec: Codec | None) -> Contract | None:
    """The dataset's contract with its statistics' digest; refuses a codec that is not its own."""
    info = require_dataset(root)
    stats = _statistics(root)
    path = root / DATASET_CONTRACT
    if not path.is_file():
        if codec is None:
            return None
        contract = Contract.of(codec, fps=info["fps"])
    else:
        contract = Contract.load(path)
        if codec is not None:
            given = Contract.of(codec, fps=contract.fps)
            given.require_same(contract, f"--codec={codec.name}", f"the dataset at {root}")
    _require_features(contract, info, root)
    digest = stats_digest(stats, contract.features)
    if contract.stats_digest not in (None, digest):
        raise ContractError(
            f"{root}/meta/stats.json is not what the conversion wrote: its digest differs from the "
            "one in meta/contract.json; convert again"
        )
    return contract.replace(stats_digest=digest)


def _statistics(root: Path) -> dict[str, Any]:
    try:
        stats: dict[str, Any] = json.loads((root / "meta/stats.json").read_text())
    except (OSError, ValueError) as error:
        raise ContractError(
            f"{root} has no readable meta/stats.json, without which nothing can be normalised "
            f"({error}); convert again"
        ) from error
    return stats


def _require_features(contract: Contract, info: dict[str, Any], root: Path) -> None:
    for name, feature in contract.features.items():
        here = info["features"].get(name, {}).get("shape")
        if here is None or list(here) != list(feature["shape"]):
            has = "has no such feature" if here is None else f"has it as {list(here)}"
            raise ContractError(
                f"the codec {contract.codec['name']!r} makes {name} of shape "
                f"{list(feature['shape'])}, but the dataset at {root} {has}; use its own codec"
            )


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


def main() -> None:
    """Run the command line."""
    from positronic.cli import run

    run(train, PROG)


if __name__ == "__main__":
    main()
