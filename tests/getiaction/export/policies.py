"""Small policies and observations for them, without a dataset."""

from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature

from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.train.runs import POLICIES, SMALL

CAMERAS = ("observation.images.left", "observation.images.side")
STATES = {"observation.state": 8, "observation.environment_state": 10}
ACTIONS = 6
PIXELS = 32


def features(cameras: tuple[str, ...]) -> dict[str, PolicyFeature]:
    made = {
        "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (10,)),
        "action": PolicyFeature(FeatureType.ACTION, (ACTIONS,)),
    }
    return made | {
        key: PolicyFeature(FeatureType.VISUAL, (3, PIXELS, PIXELS + 32)) for key in cameras
    }


def statistics(cameras: tuple[str, ...] = (), *, hardly: float | None = None) -> dict[str, Any]:
    """Statistics as a dataset has them; the third state and action vary by ``hardly``, if given."""
    rng = np.random.default_rng(3)
    made = {}
    for key, size in {**STATES, "action": ACTIONS}.items():
        mean, std = rng.normal(0, 40, size), rng.uniform(0.5, 30, size)
        if hardly is not None:
            std[2] = hardly
        spread = {"min": -3.0, "max": 3.0, "q01": -2.3, "q99": 2.3, "q10": -1.3, "q90": 1.3}
        made[key] = {"mean": mean, "std": std}
        made[key] |= {name: mean + factor * std for name, factor in spread.items()}
    for key in cameras:
        made[key] = {
            "mean": np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1),
            "std": np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1),
        }
    return made


def act(
    cameras: tuple[str, ...] = (), *, hardly: float | None = None, **fields: Any
) -> LeRobotPolicy:
    torch.manual_seed(5)
    small = POLICIES["act"] if cameras else SMALL
    # More weight on what is seen: an untrained policy hardly looks at it.
    policy = LeRobotPolicy(
        "act",
        output_features=features(cameras),
        dataset_stats=statistics(cameras, hardly=hardly),
        **{**small, **fields},
    )
    with torch.no_grad():
        for name, weights in policy.lerobot_policy.named_parameters():
            if "input_proj" in name or "action_head" in name:
                weights.mul_(3)
    return policy


def observe(
    batch: int, seed: int = 0, *, cameras: tuple[str, ...] = (), dtype: str = "float32"
) -> dict[str, Any]:
    """An observation as a gymnasium gives it: arrays, images in [0, 1] or uint8, a task."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {"task": ["lift the cube"] * batch}
    for key, size in STATES.items():
        made[key] = rng.normal(0, 40, (batch, size)).astype(np.float32)
    for key in cameras:
        image = rng.integers(0, 256, (batch, 3, PIXELS, PIXELS + 32), dtype=np.uint8)
        made[key] = image if dtype == "uint8" else image.astype(np.float32) / np.float32(255)
    return made


def as_tensors(observation: dict[str, Any]) -> dict[str, Any]:
    return {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in observation.items()
    }
