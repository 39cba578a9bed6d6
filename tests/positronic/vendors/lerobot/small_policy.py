"""A small ACT with random weights, saved as a training run by LeRobot's own functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.codec import Codec, Contract

CHUNK, STEPS, FPS = 10, 6, 15.0


def statistics(codec: Codec) -> dict[str, dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    stats = {}
    for name, feature in codec.features.items():
        shape = (3, 1, 1) if len(feature["shape"]) == 3 else tuple(feature["shape"])
        mean = rng.uniform(0.2, 0.6, shape).astype(np.float32)
        stats[name] = {"mean": mean, "std": np.full(shape, 0.2, np.float32)}
    return stats


def make_run(
    root: Path,
    codec: Codec,
    steps: Sequence[int] = (10000, 20000),
    *,
    without_statistics: str | None = None,
    contract: bool = True,
    **config: Any,
) -> Path:
    """Write ``root/checkpoints/<step>/pretrained_model`` for each step; return ``root``."""
    import torch
    from lerobot.configs import FeatureType, NormalizationMode
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors
    from lerobot.utils.feature_utils import dataset_to_policy_features

    features = dataset_to_policy_features(codec.features)
    act = ACTConfig(
        input_features={k: f for k, f in features.items() if f.type is not FeatureType.ACTION},
        output_features={k: f for k, f in features.items() if f.type is FeatureType.ACTION},
        normalization_mapping=dict.fromkeys(
            ("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.MEAN_STD
        ),
        device="cpu",
        **{
            "chunk_size": CHUNK,
            "n_action_steps": STEPS,
            "dim_model": 32,
            "n_heads": 2,
            "dim_feedforward": 64,
            "n_encoder_layers": 1,
            "n_vae_encoder_layers": 1,
            "latent_dim": 8,
            "pretrained_backbone_weights": None,
            **config,
        },
    )
    stats: dict[str, Any] = {
        name: {key: torch.from_numpy(value) for key, value in values.items()}
        for name, values in statistics(codec).items()
        if name != without_statistics
    }
    for step in steps:
        torch.manual_seed(step)
        path = root / "checkpoints" / f"{step:06d}" / "pretrained_model"
        path.mkdir(parents=True)
        ACTPolicy(act).save_pretrained(path)
        for processor in make_act_pre_post_processors(act, stats):
            processor.save_pretrained(path)
        if contract:
            document = Contract.of(codec, fps=FPS, stats=statistics(codec))
            document.replace(chunk_size=CHUNK, n_action_steps=STEPS).save(path)
    return root


def observation(seed: int = 0, size: tuple[int, int] = (48, 64)) -> dict[str, Any]:
    """Random raw signals, as a simulator or robot gives them."""
    rng = np.random.default_rng(seed)

    def pose() -> NDArray[np.float64]:
        quat = rng.normal(size=4)
        return np.concatenate([rng.uniform(-0.5, 0.5, 3), quat / np.linalg.norm(quat)])

    return {
        "robot_state.q": rng.normal(size=7).astype(np.float32),
        "robot_state.dq": rng.normal(size=7).astype(np.float32),
        "robot_state.ee_pose": pose(),
        "grip": float(rng.uniform()),
        "object_poses": np.concatenate([pose(), pose()]),
        "image.wrist": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "image.exterior": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "task": "Stack the red cube on the green cube",
    }
