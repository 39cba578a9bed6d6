"""Train and validate in two processes; run as a program, it starts the second one itself.

Usage: ``python -m tests.getiaction.train.two_processes DATASET DIRECTORY``; each process writes
``rank<n>.pt`` into the directory.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from tests.getiaction.train.small import data, drift, policy, trainer

EPOCHS, ROLLOUTS = 2, 5


class Batches(Callback):
    """Record which samples each step trained on, and its loss."""

    def __init__(self) -> None:
        self.indices: list[list[int]] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        self.indices.append(batch["index"].tolist())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
        self.losses.append(outputs["loss"].item())


def main(root: Path, directory: Path) -> None:
    batches, module = Batches(), policy()
    gyms = {"short": drift(success_below=99.0), "long": drift()}
    source = data(root, val_gyms=gyms, num_rollouts_val=ROLLOUTS, val_split=0.3)
    run = trainer(directory, devices=2, strategy="ddp", max_epochs=EPOCHS, callbacks=[batches])
    run.fit(module, source)
    # One rollout for two processes: the second has none.
    fitted = {name: value.clone() for name, value in module.lerobot_policy.state_dict().items()}
    seen = {name: value.item() for name, value in run.callback_metrics.items()}
    episodes = dict(module.episodes)
    (lonely,) = run.validate(
        module, data(root, val_gyms=drift(), num_rollouts_val=1), verbose=False
    )
    torch.save(
        {
            "indices": batches.indices,
            "losses": batches.losses,
            "weights": fitted,
            "metrics": seen,
            "episodes": {
                name: [(e.seed, e.sum_reward, e.success, e.episode_length) for e in several]
                for name, several in episodes.items()
            },
            "lonely": lonely,
        },
        directory / f"rank{run.global_rank}.pt",
    )


if __name__ == "__main__":
    # As the tests have it: nothing is to be warned of.
    warnings.simplefilter("error")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
