"""A converted dataset of numbers only, as ``eepose_state`` makes it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from positronic.codec import Contract
from positronic.vendors.lerobot import codecs


def write_dataset(root: Path, lengths: Sequence[int] = (12, 9)) -> Path:
    """Write episodes of so many frames, with their contract; return ``root``."""
    from lerobot.datasets import LeRobotDataset

    codec = codecs.eepose_state.instantiate()
    dataset = LeRobotDataset.create("local/small", 15, codec.features, root=root, use_videos=False)
    rng = np.random.default_rng(1)
    for length in lengths:
        for _ in range(length):
            frame: dict[str, Any] = {
                name: rng.normal(1, 2, feature["shape"]).astype(np.float32)
                for name, feature in codec.features.items()
            }
            dataset.add_frame({**frame, "task": "stack"})
        dataset.save_episode()
    dataset.finalize()
    stats = json.loads((root / "meta/stats.json").read_text())
    Contract.of(codec, fps=15, stats=stats).save(root / "meta")
    return root
