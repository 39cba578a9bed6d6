"""Training job: options of one run, checked by the command, carried out by ``training.run``."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import UsageError
from foundation.text import printable
from positronic.codec import Contract
from positronic.vendors.lerobot.training.options import Options
from positronic.vendors.lerobot.training.run_directory import RunDirectory

# Set by torchrun, whose process is one of WORLD_SIZE.
_TORCHRUN = "TORCHELASTIC_RUN_ID"


def in_first_process() -> bool:
    """Return whether this process is rank 0, which logs and writes."""
    # Lightning runs the command again in each further process of this machine.
    rank = "RANK" if _TORCHRUN in os.environ else "LOCAL_RANK"
    return os.environ.get(rank, "0") == "0"


def across_processes(options: Options) -> Options:
    """Set ``devices`` to the processes of all machines, if a launcher has started them.

    Raises:
        UsageError: the processes would train several independent runs instead of one.
    """
    world, tasks = _count("WORLD_SIZE"), _count("SLURM_STEP_NUM_TASKS")
    if _TORCHRUN in os.environ:
        local = _count("LOCAL_WORLD_SIZE")
        if world % local:
            raise UsageError(
                f"torchrun starts {world} processes, {local} of them here; give every machine the "
                "same --nproc_per_node"
            )
        if options.devices not in (1, local, world):
            raise UsageError(
                f"--devices={options.devices}, but torchrun starts {world} processes; leave "
                "--devices out, or start as many"
            )
        return dataclasses.replace(options, devices=world)
    if world not in (1, options.devices):
        raise UsageError(
            f"WORLD_SIZE is {world} and --devices is {options.devices}: these would be separate "
            "runs; start one run on several machines by torchrun, or unset WORLD_SIZE"
        )
    if tasks > 1:
        raise UsageError(
            f"srun starts {tasks} tasks, which would be separate runs; let it start one torchrun "
            "on each machine"
        )
    return options


def machines() -> int:
    """Return the number of machines that train the run."""
    if _TORCHRUN not in os.environ:
        return 1
    return _count("WORLD_SIZE") // _count("LOCAL_WORLD_SIZE")


def _count(variable: str) -> int:
    text = os.environ.get(variable, "1")
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 10):
        raise UsageError(f"{variable} is {printable(text, 40)!r}; expected a number of processes")
    return int(text)


@dataclass(frozen=True)
class TrainingJob:
    """One training run, validated as far as possible without heavy imports.

    Attributes:
        options: the options, with derived defaults filled in.
        dataset_root: the dataset's local path.
        run: the run's directory.
        contract: the dataset's contract.
        resume_from: the checkpoint to resume from; None to start anew.
    """

    options: Options
    dataset_root: Path
    run: RunDirectory
    contract: Contract
    resume_from: Path | None

    @property
    def run_dir(self) -> Path:
        """The local directory of the run's files."""
        return self.run.path

    @property
    def batch_size(self) -> int:
        """Samples per step and device."""
        size = self.options.batch_size
        assert size is not None  # settled
        return size

    @property
    def eval_freq(self) -> int:
        """Steps between evaluations."""
        steps = self.options.eval_freq
        assert steps is not None  # settled
        return steps
