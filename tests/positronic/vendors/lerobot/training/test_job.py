"""Processes that a launcher starts: one run, or a refusal."""

import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from foundation.errors import UsageError
from getiaction.train import Trainer
from positronic.vendors.lerobot.training.job import across_processes, in_first_process, machines
from positronic.vendors.lerobot.training.options import Options
from positronic.vendors.lerobot.training.presets import act_state
from positronic.vendors.lerobot.training.run import finish

VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "TORCHELASTIC_RUN_ID",
    "SLURM_STEP_NUM_TASKS",
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    def by(**variables: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    by()
    return by


def torchrun(rank: int, local_rank: int, world: int, local: int) -> dict[str, str]:
    return {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(local),
    }


def options(devices: int = 1) -> Options:
    policy: Any = act_state.instantiate()
    return Options(dataset_root="d", run_name="r", output_dir="o", policy=policy, devices=devices)


def test_alone(started: Any) -> None:
    assert in_first_process()
    assert (across_processes(options()), machines()) == (options(), 1)
    # As Lightning starts the other processes of one machine.
    started(LOCAL_RANK="1", WORLD_SIZE="2")
    assert not in_first_process()
    assert across_processes(options(2)).devices == 2


def test_several_machines_are_one_run(started: Any) -> None:
    started(**torchrun(2, 0, world=4, local=2))
    assert not in_first_process()  # though it is the first one of its machine
    for devices in (1, 2, 4):
        assert across_processes(options(devices)).devices == 4
    assert machines() == 2
    started(**torchrun(0, 0, world=4, local=2))
    assert in_first_process()


@pytest.mark.parametrize(
    ("variables", "devices", "says"),
    [
        ({"WORLD_SIZE": "2"}, 1, "WORLD_SIZE is 2 and --devices is 1: these would be separate"),
        ({"WORLD_SIZE": "4"}, 2, "WORLD_SIZE is 4"),
        ({"WORLD_SIZE": "two"}, 1, "WORLD_SIZE is 'two'; expected a number of processes"),
        ({"WORLD_SIZE": "9" * 5000}, 1, "expected a number of processes"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 1, "srun starts 2 tasks"),
        (torchrun(0, 0, world=3, local=2), 1, "give every machine the same --nproc_per_node"),
        (torchrun(0, 0, world=4, local=2), 3, "--devices=3, but torchrun starts 4"),
        ({**torchrun(0, 0, 2, 1), "LOCAL_WORLD_SIZE": "0"}, 1, "LOCAL_WORLD_SIZE is '0'"),
    ],
)
def test_never_separate_runs(
    started: Any, variables: dict[str, str], devices: int, says: str
) -> None:
    started(**variables)
    with pytest.raises(UsageError, match=says):
        across_processes(options(devices))


def test_other_processes_end_without_wandb(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    finish([TensorBoardLogger(tmp_path)])


def test_weights_without_gradients_on_several_machines(started: Any, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", devices=1, num_nodes=2, default_root_dir=tmp_path)
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"]
