"""Policies to train, by name: ``--policy=.act_state``, and a field: ``--policy.dim_model=256``.

A preset is plain data; LeRobot's config is made of it where the training runs.
"""

from dataclasses import dataclass, field
from typing import Any

import configuronic as cfn

__all__ = ["PolicyPreset", "act", "act_64px", "act_state"]


@dataclass(frozen=True)
class PolicyPreset:
    """A LeRobot policy's name and config fields, and how it is trained best."""

    name: str
    batch_size: int
    warmup_steps: int | None
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of LeRobot's config that differ from its defaults."""


def preset(
    name: str, batch_size: int = 8, warmup_steps: int | None = None, **fields: Any
) -> PolicyPreset:
    """A LeRobot policy to train; any field of its LeRobot config is a flag too.

    Args:
        name: the policy's name in LeRobot, e.g. act.
        batch_size: samples a step, where --batch_size is not given.
        warmup_steps: with it the learning rate rises over so many steps and then falls to zero
            along a cosine over all steps; without it LeRobot's own schedule for the policy is kept.
    """
    return PolicyPreset(name, batch_size, warmup_steps, fields)


# LeRobot's defaults for ACT are those of the paper and of the founding document; written out,
# because a later LeRobot that changes them should not silently change what is trained here.
act = cfn.Config(
    preset,
    name="act",
    batch_size=8,
    chunk_size=100,
    n_action_steps=100,
    vision_backbone="resnet18",
    pretrained_backbone_weights="ResNet18_Weights.IMAGENET1K_V1",
    dim_model=512,
    n_heads=8,
    dim_feedforward=3200,
    n_encoder_layers=4,
    n_decoder_layers=1,
    use_vae=True,
    latent_dim=32,
    n_vae_encoder_layers=4,
    dropout=0.1,
    kl_weight=10.0,
    optimizer_lr=1e-5,
    optimizer_lr_backbone=1e-5,
    optimizer_weight_decay=1e-4,
)

# Small ACTs that learn a scripted task on two CPU cores. Scripted demonstrations have one way of
# doing things, so the VAE, which is there to tell several ways apart, is left out.
act_state = cfn.Config(
    preset,
    name="act",
    batch_size=128,
    warmup_steps=100,
    chunk_size=20,
    n_action_steps=10,
    dim_model=128,
    n_heads=4,
    dim_feedforward=512,
    n_encoder_layers=2,
    n_decoder_layers=1,
    use_vae=False,
    dropout=0.1,
    optimizer_lr=1e-3,
    optimizer_lr_backbone=1e-3,
    optimizer_weight_decay=1e-4,
)

act_64px = act_state.override(
    batch_size=16,
    vision_backbone="resnet18",
    pretrained_backbone_weights=None,
    use_amp=True,  # on a CPU with bfloat16 a step takes 0.7 of the time
    optimizer_lr=2e-4,
    optimizer_lr_backbone=2e-4,
)
