"""Training of ACT in ten lines: ``python examples/train_in_ten_lines.py DATASET``.

The lines that count are those of ``train``; the rest reads the command line.
"""

import argparse
from pathlib import Path

from getiaction.data import LeRobotDataModule
from getiaction.policies.lerobot import ACT
from getiaction.train import Trainer


def train(dataset: str, output: Path, steps: int) -> Path:
    """Train for so many steps; return the directory of the trained policy."""
    # Every setting of LeRobot's ACT is a keyword here. This one is small enough for a CPU. Its
    # cameras begin with random weights: leave the last argument out and torchvision downloads
    # ImageNet's.
    policy = ACT(chunk_size=20, dim_model=128, pretrained_backbone_weights=None)
    # Features, statistics and the time steps of a chunk are read from the dataset.
    data = LeRobotDataModule(root=dataset, train_batch_size=8)
    trainer = Trainer(max_steps=steps, default_root_dir=output, log_every_n_steps=1)
    trainer.fit(policy, data)
    print(f"loss {float(trainer.callback_metrics['train/loss']):.3f} after {steps} steps")
    # LeRobot's own format: `lerobot-eval --policy.path=...` and `ACT.from_pretrained` open it.
    trained = output / "pretrained_model"
    policy.save_pretrained(trained)
    return trained


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="directory of a LeRobot dataset, or s3://bucket/key")
    parser.add_argument("--output", type=Path, default=Path("experiments/ten_lines"))
    parser.add_argument("--steps", type=int, default=20, help="a useful policy takes thousands")
    args = parser.parse_args()
    print(f"saved {train(args.dataset, args.output, args.steps)}")


if __name__ == "__main__":
    main()
