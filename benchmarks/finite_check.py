"""Benchmark: time of the check for finite numbers at a checkpoint, beside a training step.

OMP_NUM_THREADS=1 python benchmarks/finite_check.py

Processor seconds of one thread, so that other programs beside it make no difference.
"""

import argparse
import time
from collections.abc import Callable

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy

from getiaction.train.publishable import require_finite

BATCH = 8


def main() -> None:
    """Print one row of a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=224, help="pixels of a camera frame's side")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    size = options.size
    config = ACTConfig(
        device="cpu",
        pretrained_backbone_weights=None,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
            "observation.images.left": PolicyFeature(FeatureType.VISUAL, (3, size, size)),
            "observation.images.side": PolicyFeature(FeatureType.VISUAL, (3, size, size)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (8,))},
    )
    policy = ACTPolicy(config)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
    batch = {
        "observation.state": torch.randn(BATCH, 8),
        "observation.images.left": torch.rand(BATCH, 3, size, size),
        "observation.images.side": torch.rand(BATCH, 3, size, size),
        "action": torch.randn(BATCH, config.chunk_size, 8),
        "action_is_pad": torch.zeros(BATCH, config.chunk_size, dtype=torch.bool),
    }

    def step() -> None:
        loss, _ = policy.forward(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    step_s = shortest(step, options.repeats)
    check_s = shortest(
        lambda: require_finite(policy, [optimizer], step=1, kept=""), options.repeats
    )
    weights = sum(p.numel() for p in policy.parameters()) / 1e6
    print("| policy | threads | a step | the check, at each checkpoint | of 20,000 steps |")
    print("|---|---|---|---|---|")
    print(
        f"| ACT, {weights:.0f} M weights, batch {BATCH}, 2 cameras of {size}² | "
        f"{torch.get_num_threads()} | {1e3 * step_s:.0f} ms | {1e3 * check_s:.0f} ms | "
        f"{100 * check_s / (20_000 * step_s):.5f} % |"
    )


def shortest(action: Callable[[], None], repeats: int) -> float:
    """Return the processor seconds of the fastest of several times."""
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        action()
        taken.append(time.process_time() - begun)
    return min(taken)


if __name__ == "__main__":
    main()
