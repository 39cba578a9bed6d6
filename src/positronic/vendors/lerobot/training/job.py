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

# torchrun says by this that it has started the process, which is then one of WORLD_SIZE.
_TORCHRUN = "TORCHELASTIC_RUN_ID"


def in_first_process() -> bool:
    """Whether this process is the one that says and writes things."""
    # Lightning starts the command again in each further process of this machine.
    rank = "RANK" if _TORCHRUN in os.environ else "LOCAL_RANK"
    return os.environ.get(rank, "0") == "0"


def across_processes(options: Options) -> Options:
    """Let ``devices`` count those of all machines, where a launcher has started the processes.

    Raises:
        UsageError: the processes would not train one run, but several that know nothing of each
            other.
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
    """How many machines train the run together."""
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
