"""Datasets of other people's robots, written by LeRobot itself, and its answers to compare with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
MOTORS = [f"{joint}.pos" for joint in JOINTS]
CAMERAS = {"front": (48, 64), "wrist": (64, 48)}
# Smaller than any of the presets, and with pictures.
TINY_ACT: dict[str, Any] = {
    "chunk_size": 6,
    "n_action_steps": 4,
    "dim_model": 16,
    "n_heads": 2,
    "dim_feedforward": 32,
    "n_encoder_layers": 1,
    "use_vae": False,
    "pretrained_backbone_weights": None,
}


def write_so100(
    root: Path,
    *,
    fps: int = 30,
    lengths: tuple[int, ...] = (14, 11),
    cameras: Mapping[str, tuple[int, int]] = CAMERAS,
    use_videos: bool = True,
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write an arm's teleoperation as `lerobot-record` does, in degrees; return ``root``."""
    from lerobot.datasets import LeRobotDataset

    vector = {"dtype": "float32", "shape": (len(MOTORS),), "names": MOTORS}
    features: dict[str, dict[str, Any]] = {"action": vector, "observation.state": vector}
    for name, size in cameras.items():
        features[f"observation.images.{name}"] = {
            "dtype": "video" if use_videos else "image",
            "shape": (*size, 3),
            "names": ["height", "width", "channels"],
        }
    features |= {name: dict(feature) for name, feature in (more or {}).items()}
    dataset = LeRobotDataset.create(
        "local/so100", fps, features, root=root, robot_type="so100", use_videos=use_videos
    )
    rng = np.random.default_rng(fps)
    for length in lengths:
        for step in range(length):
            frame = {name: _value(feature, step, rng) for name, feature in features.items()}
            dataset.add_frame({**frame, "task": "put the brick into the box"})
        dataset.save_episode()
    dataset.finalize()
    return root


def _value(feature: Mapping[str, Any], step: int, rng: np.random.Generator) -> Any:
    shape = tuple(feature["shape"])
    if feature["dtype"] in ("video", "image"):
        image = np.full(shape, 40, np.uint8)
        image[step : step + 20, 8:30] = rng.integers(0, 256, 3)
        return image
    if feature["dtype"] == "string":
        return "text"
    value = 60 * np.sin(0.3 * step + np.arange(int(np.prod(shape)))) + rng.normal(size=shape)
    return (value > 0) if feature["dtype"] == "bool" else value.astype(feature["dtype"])


def observation(dataset_root: Path, row: int) -> dict[str, Any]:
    """One recorded observation as a client sends it: LeRobot's keys, images uint8 (H, W, 3)."""
    from lerobot.datasets import LeRobotDataset

    sample = LeRobotDataset("local/so100", root=dataset_root)[row]
    found: dict[str, Any] = {"task": sample["task"]}
    for name, value in sample.items():
        if name.startswith("observation."):
            array = value.numpy()
            if array.ndim == 3:
                array = (255 * array).round().astype(np.uint8).transpose(1, 2, 0)
            found[name] = array
    return found


def lerobot_chunk(pretrained: Path, obs: Mapping[str, Any]) -> NDArray[np.float32]:
    """The chunk that LeRobot's own classes predict for ``obs``: its loop of `lerobot-eval`."""
    import torch
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(pretrained)
    config.device = "cpu"
    policy = get_policy_class(config.type).from_pretrained(pretrained, config=config).eval()
    before, after = make_pre_post_processors(config, pretrained_path=str(pretrained))
    batch: dict[str, Any] = {"task": obs.get("task", "")}
    for name, value in obs.items():
        if name.startswith("observation."):
            tensor = torch.from_numpy(np.asarray(value).copy())
            if tensor.ndim == 3:
                tensor = tensor.permute(2, 0, 1).float() / 255
            batch[name] = tensor
    with torch.inference_mode():
        chunk = policy.predict_action_chunk(before(batch))
        rows = [after(chunk[:, i]) for i in range(chunk.shape[1])]
    found: NDArray[np.float32] = torch.cat(rows).numpy()
    return found
