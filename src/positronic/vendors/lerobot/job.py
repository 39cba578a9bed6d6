"""What one training run is told; checked by the command, carried out by ``training``."""

from dataclasses import dataclass
from pathlib import Path

from positronic.codec import Contract
from positronic.vendors.lerobot.presets import PolicyPreset


@dataclass(frozen=True)
class TrainingJob:
    """One training run, checked as far as that goes without heavy imports."""

    dataset_root: Path
    run_dir: Path
    policy: PolicyPreset
    contract: Contract | None
    steps: int
    save_freq: int
    log_freq: int
    batch_size: int
    num_workers: int | None
    seed: int
    device: str
    resume_from: Path | None
