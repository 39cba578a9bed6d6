"""What one training run is told; checked by the command, carried out by ``training``."""

import os
from dataclasses import dataclass
from pathlib import Path

from positronic.codec import Contract
from positronic.vendors.lerobot.training.options import Options
from positronic.vendors.lerobot.training.run_directory import RunDirectory

# Lightning starts the command again in each further process of a run on several devices.
_PROCESS = "LOCAL_RANK"


def in_first_process() -> bool:
    """Whether this process is the one that says and writes things."""
    return os.environ.get(_PROCESS, "0") == "0"


@dataclass(frozen=True)
class TrainingJob:
    """One training run, checked as far as that goes without heavy imports.

    Attributes:
        options: what the flags say, settled.
        dataset_root: where the dataset lies on this machine.
        run: where the run lives.
        contract: the dataset's; None where it has none.
        resume_from: the checkpoint to go on from.
    """

    options: Options
    dataset_root: Path
    run: RunDirectory
    contract: Contract | None
    resume_from: Path | None

    @property
    def run_dir(self) -> Path:
        """Where the run's files lie on this machine."""
        return self.run.path

    @property
    def batch_size(self) -> int:
        """Samples a step and device."""
        size = self.options.batch_size
        assert size is not None  # settled
        return size

    @property
    def eval_freq(self) -> int:
        """Steps between evaluations."""
        steps = self.options.eval_freq
        assert steps is not None  # settled
        return steps
