"""Policies that ``serving.py`` serves: ACT with random weights, as LeRobot saves a training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FPS = 15.0
STEP = 10000


@dataclass(frozen=True)
class Kind:
    """A policy, and what its robot sends."""

    name: str
    size: tuple[int, int]
    """Height and width of both cameras, in pixels."""
    preset: str
    """Of positronic.vendors.lerobot.training.presets."""


# The demo's policy, and the one of the paper with LeRobot's defaults.
KINDS = {
    "64": Kind("two 64x64 cameras, width 128", (64, 64), "act_64px"),
    "224": Kind("two 224x224 cameras, width 512", (224, 224), "act"),
}


def save(kind: Kind, root: Path) -> Path:
    """Write a checkpoint of random weights, unless it is there; returns the run's directory."""
    path = root / "checkpoints" / f"{STEP:06d}" / "pretrained_model"
    if path.exists():
        return root
    import torch
    from lerobot.configs import FeatureType
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors
    from lerobot.utils.feature_utils import dataset_to_policy_features

    from positronic.codec import Contract
    from positronic.vendors.lerobot import codecs
    from positronic.vendors.lerobot.training import presets

    codec = codecs.eepose_absolute(image_size=kind.size)
    features = dataset_to_policy_features(codec.features)
    fields = getattr(presets, kind.preset).instantiate().fields
    config = ACTConfig(
        input_features={k: f for k, f in features.items() if f.type is not FeatureType.ACTION},
        output_features={k: f for k, f in features.items() if f.type is FeatureType.ACTION},
        device="cpu",
        **{**fields, "pretrained_backbone_weights": None},
    )
    stats = _statistics(codec.features)
    tensors = {
        name: {key: torch.from_numpy(value) for key, value in values.items()}
        for name, values in stats.items()
    }
    path.mkdir(parents=True)
    torch.manual_seed(0)
    ACTPolicy(config).save_pretrained(path)
    for processor in make_act_pre_post_processors(config, tensors):
        processor.save_pretrained(path)
    contract = Contract.of(codec, fps=FPS, stats=stats)
    contract.replace(chunk_size=config.chunk_size, n_action_steps=config.n_action_steps).save(path)
    return root


def _statistics(features: dict[str, Any]) -> dict[str, dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    stats = {}
    for name, feature in features.items():
        shape = (3, 1, 1) if len(feature["shape"]) == 3 else tuple(feature["shape"])
        mean = rng.uniform(0.2, 0.6, shape).astype(np.float32)
        stats[name] = {"mean": mean, "std": np.full(shape, 0.2, np.float32)}
    return stats


def observation(kind: Kind, seed: int) -> dict[str, Any]:
    """What a robot sends: a pose, a grip, and two random pictures."""
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=4)
    position = rng.uniform(-0.5, 0.5, 3)
    return {
        "robot_state.ee_pose": np.concatenate([position, quaternion / np.linalg.norm(quaternion)]),
        "grip": float(rng.uniform()),
        "image.wrist": rng.integers(0, 256, (*kind.size, 3), dtype=np.uint8),
        "image.exterior": rng.integers(0, 256, (*kind.size, 3), dtype=np.uint8),
        "task": "stack the red cube on the green cube",
    }
