"""Small LeRobot policies with random weights, saved as a run by LeRobot's own functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.codec import Codec, Contract, Image, Parallel
from positronic.vendors.lerobot import codecs

CHUNK, STEPS, FPS = 10, 6, 15.0

NO_WEIGHTS = {"pretrained_backbone_weights": None}
SMALL: dict[str, dict[str, Any]] = {
    "act": {
        "chunk_size": CHUNK,
        "n_action_steps": STEPS,
        "dim_model": 32,
        "n_heads": 2,
        "dim_feedforward": 64,
        "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "latent_dim": 8,
        **NO_WEIGHTS,
    },
    "diffusion": {
        "n_obs_steps": 3,
        "horizon": 8,
        "n_action_steps": 4,
        "down_dims": (16, 32),
        "diffusion_step_embed_dim": 16,
        "num_train_timesteps": 10,
        "spatial_softmax_num_keypoints": 4,
        **NO_WEIGHTS,
    },
    "vqbet": {
        "n_obs_steps": 3,
        "n_action_pred_token": 2,
        "action_chunk_size": 4,
        "crop_shape": None,
        "spatial_softmax_num_keypoints": 4,
        "vqvae_n_embed": 8,
        "vqvae_embedding_dim": 16,
        "vqvae_enc_hidden_dim": 16,
        "gpt_block_size": 64,
        "gpt_input_dim": 32,
        "gpt_output_dim": 32,
        "gpt_n_layer": 1,
        "gpt_n_head": 2,
        "gpt_hidden_dim": 32,
        **NO_WEIGHTS,
    },
    "tdmpc": {
        "n_action_repeats": 1,
        "n_action_steps": 3,
        "horizon": 4,
        "latent_dim": 8,
        "mlp_dim": 16,
        "state_encoder_hidden_dim": 16,
        "image_encoder_hidden_dim": 8,
        "n_gaussian_samples": 16,
        "n_pi_samples": 4,
        "n_elites": 4,
        "cem_iterations": 2,
    },
}


def one_camera(size: int = 48) -> Codec:
    """A codec for the policies that take one image."""
    absolute = codecs.eepose_absolute(image_size=size)
    assert isinstance(absolute, Parallel)
    state, *_, action = absolute.parts
    image = Image("observation.images.left", "image.wrist", (size, size))
    return Parallel((state, image, action), "one_camera")


def statistics(codec: Codec) -> dict[str, dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    stats = {}
    for name, feature in codec.features.items():
        shape = (3, 1, 1) if len(feature["shape"]) == 3 else tuple(feature["shape"])
        mean = rng.uniform(0.2, 0.6, shape).astype(np.float32)
        ends = {"min": np.full(shape, -1.5, np.float32), "max": np.full(shape, 1.0, np.float32)}
        stats[name] = {"mean": mean, "std": np.full(shape, 0.2, np.float32), **ends}
    return stats


def make_run(
    root: Path,
    codec: Codec,
    steps: Sequence[int] = (10000, 20000),
    *,
    policy: str = "act",
    without_statistics: str | None = None,
    contract: bool = True,
    **fields: Any,
) -> Path:
    """Write ``root/checkpoints/<step>/pretrained_model`` for each step; return ``root``."""
    import torch
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = _config(policy, codec, fields)
    stats: dict[str, Any] = {
        name: {key: torch.from_numpy(value) for key, value in values.items()}
        for name, values in statistics(codec).items()
        if name != without_statistics
    }
    for step in steps:
        torch.manual_seed(step)
        path = root / "checkpoints" / f"{step:06d}" / "pretrained_model"
        path.mkdir(parents=True)
        made = get_policy_class(policy)(config)
        if policy == "vqbet":  # otherwise it says that its codes are still to be found
            made.vqbet.action_head.vqvae_model.discretized.fill_(True)
        made.save_pretrained(path)
        for processor in make_pre_post_processors(config, dataset_stats=stats):
            processor.save_pretrained(path)
        if contract:
            document = Contract.of(codec, fps=FPS, stats=statistics(codec))
            sizes = {n: getattr(config, n, None) for n in ("chunk_size", "n_action_steps")}
            document.replace(**sizes).save(path)
    return root


def _config(policy: str, codec: Codec, fields: dict[str, Any]) -> Any:
    from lerobot.configs import FeatureType, NormalizationMode
    from lerobot.policies.factory import make_policy_config
    from lerobot.utils.feature_utils import dataset_to_policy_features

    features = dataset_to_policy_features(codec.features)
    if policy == "act":
        kinds = ("VISUAL", "STATE", "ENV", "ACTION")
        fields = {
            "normalization_mapping": dict.fromkeys(kinds, NormalizationMode.MEAN_STD)
        } | fields
    return make_policy_config(
        policy,
        input_features={k: f for k, f in features.items() if f.type is not FeatureType.ACTION},
        output_features={k: f for k, f in features.items() if f.type is FeatureType.ACTION},
        device="cpu",
        **{**SMALL[policy], **fields},
    )


def observation(seed: int = 0, size: tuple[int, int] = (48, 64)) -> dict[str, Any]:
    """Random raw signals, as a simulator or robot gives them; its gripper points down or leans."""
    rng = np.random.default_rng(seed)

    def pose(*, down: bool = False) -> NDArray[np.float64]:
        # Any two of those that lean are less than half a turn apart.
        quat = rng.uniform(-0.4, 0.4, 4) + np.eye(4)[1] if down else rng.normal(size=4)
        return np.concatenate([rng.uniform(-0.5, 0.5, 3), quat / np.linalg.norm(quat)])

    return {
        "robot_state.q": rng.normal(size=7).astype(np.float32),
        "robot_state.dq": rng.normal(size=7).astype(np.float32),
        "robot_state.ee_pose": pose(down=True),
        "grip": float(rng.uniform()),
        "object_poses": np.concatenate([pose(), pose()]),
        "image.wrist": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "image.exterior": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "task": "Stack the red cube on the green cube",
    }
