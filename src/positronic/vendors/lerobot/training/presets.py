"""Policy presets by name: ``--policy=.act_state``, and a field: ``--policy.dim_model=256``.

Each is plain data, from which training makes LeRobot's config. The fields are those of LeRobot's
config, so that an unknown one or a value of another type is refused at once.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

import configuronic as cfn

from foundation.errors import UsageError
from foundation.text import did_you_mean, printable
from positronic.vendors.lerobot.training import policy_fields

__all__ = ["PolicyPreset", "act", "act_64px", "act_state", "registered"]

BATCH_SIZE = 8  # LeRobot's default
WARMUP_STEPS = "warmup_steps"


@dataclass(frozen=True)
class PolicyPreset:
    """A LeRobot policy's name, config fields and training defaults."""

    name: str
    batch_size: int
    warmup_steps: int | None
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of LeRobot's config that differ from its defaults."""


def preset(
    name: str, fields: Mapping[str, Any] | None = None, *, batch_size: int = BATCH_SIZE
) -> cfn.Config:
    """Return a LeRobot policy as a config for the command line.

    Args:
        name: the policy's name in LeRobot, e.g. act.
        fields: values of its LeRobot config that differ from the defaults, and ``warmup_steps``.
        batch_size: samples per step, if --batch_size is not given.
    """

    def made(warmup_steps: int | None = None, **given: Any) -> PolicyPreset:
        return PolicyPreset(name, batch_size, warmup_steps, given)

    warmup = Parameter(WARMUP_STEPS, Parameter.KEYWORD_ONLY, default=None, annotation=int | None)
    target: Any = made
    target.__name__ = target.__qualname__ = name
    target.__doc__ = _explained(name)
    target.__signature__ = inspect.Signature([warmup, *policy_fields.parameters(name)])
    # Fields may come from an untrusted file: plain data that names nothing to import.
    return cfn.Config(target).override_data(**(fields or {}))


def registered(name: str, fields: Mapping[str, Any] | None = None) -> cfn.Config:
    """Return the LeRobot policy ``name``, with LeRobot's defaults except ``fields``.

    Raises:
        UsageError: there is no such policy, and no plugin that might bring it.
    """
    known = policy_fields.sources()
    if name not in known and isinstance(ours := globals().get(name), cfn.Config):
        return ours.override_data(**(fields or {}))
    if name not in known and not policy_fields.has_plugins():
        named = [f".{preset}" for preset in ("act", "act_state", "act_64px")]
        raise UsageError(
            f"--policy={printable(name, 80)}: LeRobot has no such policy"
            f"{did_you_mean(name, [*known, *named])}; "
            f"it has: {', '.join(sorted(known))}; presets are {', '.join(named)}"
        )
    return preset(name, fields)


def _explained(name: str) -> str:
    """Return the help for the fields: our own one, then LeRobot's text."""
    ours = (
        f"    {WARMUP_STEPS}: with it the learning rate rises over so many steps and then falls\n"
        "        to zero along a cosine; without it LeRobot's own schedule is kept."
    )
    theirs = policy_fields.explained(name).removeprefix("Args:")
    return f"LeRobot's policy {name}.\n\nArgs:\n{ours}{theirs}"


# LeRobot's defaults for ACT are those of the paper and of the founding document; written out,
# because a later LeRobot that changes them should not silently change what is trained here.
_PAPER: dict[str, Any] = {
    "chunk_size": 100,
    "n_action_steps": 100,
    "vision_backbone": "resnet18",
    "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
    "dim_model": 512,
    "n_heads": 8,
    "dim_feedforward": 3200,
    "n_encoder_layers": 4,
    "n_decoder_layers": 1,
    "use_vae": True,
    "latent_dim": 32,
    "n_vae_encoder_layers": 4,
    "dropout": 0.1,
    "kl_weight": 10.0,
    "optimizer_lr": 1e-5,
    "optimizer_lr_backbone": 1e-5,
    "optimizer_weight_decay": 1e-4,
}

act = preset("act", _PAPER)
"""ACT of full size, for training on a GPU."""

# Small ACTs that learn a scripted task on two CPU cores. Scripted demonstrations are unimodal, so
# the VAE, which models several modes, is left out.
_SMALL: dict[str, Any] = {
    "warmup_steps": 100,
    "chunk_size": 20,
    "n_action_steps": 10,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 512,
    "n_encoder_layers": 2,
    "n_decoder_layers": 1,
    "use_vae": False,
    "dropout": 0.1,
    "optimizer_lr": 1e-3,
    "optimizer_lr_backbone": 1e-3,
    "optimizer_weight_decay": 1e-4,
}

# Without images there is little to overfit, and dropout takes a third of a step on a CPU. The
# shorter chunk halves the work, and observes the cubes twice as often.
_SMALL_STATE: dict[str, Any] = {
    "chunk_size": 10,
    "n_action_steps": 5,
    "dim_feedforward": 256,
    "dropout": 0.0,
}

act_state = preset("act", _SMALL | _SMALL_STATE, batch_size=128)
"""Small ACT for datasets without pictures, which two CPU cores train in minutes."""

_SMALL_IMAGES: dict[str, Any] = {
    "vision_backbone": "resnet18",
    "pretrained_backbone_weights": None,
    "use_amp": True,  # on a CPU with bfloat16 a step takes 0.7 of the time
    "optimizer_lr": 2e-4,
    "optimizer_lr_backbone": 2e-4,
}

act_64px = preset("act", _SMALL | _SMALL_IMAGES, batch_size=16)
"""Small ACT for pictures of 64 by 64 pixels, which two CPU cores train."""
