"""LeRobot policy configs from a policy's name and plain fields."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import draccus
import lerobot.policies  # noqa: F401 - importing it registers the policies
from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig

from getiaction.errors import GetiactionError

# What the data and the trainer decide, and so is not for the caller to set.
RUNTIME_FIELDS = frozenset({"input_features", "output_features", "device"})
# Nothing here uploads a policy by itself; LeRobot's default would demand a repository name.
FIXED: Mapping[str, Any] = {"push_to_hub": False, "device": "cpu"}


def policy_config(policy_name: str, fields: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """Build LeRobot's config of the policy ``policy_name``.

    Args:
        policy_name: A name in LeRobot's registry, e.g. ``act``.
        fields: Values for fields of its config; names of enum members and other plain forms, as
            they come from a command line, are converted as LeRobot converts them.

    Raises:
        GetiactionError: an unknown policy or field (with the nearest one), or a value refused.
    """
    known = PreTrainedConfig.get_known_choices()
    if policy_name not in known:
        raise GetiactionError(
            f"there is no policy {policy_name!r} in LeRobot{_nearest(policy_name, known)}; "
            f"it offers: {', '.join(sorted(known))}"
        )
    config_class = PreTrainedConfig.get_choice_class(policy_name)
    allowed = {f.name for f in dataclasses.fields(config_class) if f.init} - RUNTIME_FIELDS
    fields = dict(fields or {})
    for name in fields:
        if name not in allowed:
            raise GetiactionError(
                f"policy {policy_name!r} has no field {name!r}{_nearest(name, allowed)}"
            )
    try:
        plain = {name: draccus.encode(value) for name, value in {**FIXED, **fields}.items()}
        config: PreTrainedConfig = draccus.decode(config_class, plain)
    except (draccus.utils.DecodingError, draccus.utils.ParsingError) as error:
        reason = error.__cause__ or error
        raise GetiactionError(f"policy {policy_name!r} refuses its fields: {reason}") from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise GetiactionError(f"policy {policy_name!r} refuses its fields: {error}") from error
    return config


def normalise_environment_state(config: PreTrainedConfig, features: Mapping[str, Any]) -> None:
    """Let environment state be normalised as robot state is, unless ``config`` says how.

    LeRobot's defaults name no mode for it, and what has no mode passes its normaliser unchanged.
    """
    mapping = getattr(config, "normalization_mapping", None)
    present = any(feature.type is FeatureType.ENV for feature in features.values())
    if mapping is not None and present:
        mapping.setdefault(FeatureType.ENV.value, mapping.get("STATE", NormalizationMode.MEAN_STD))


def _nearest(word: str, offered: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(offered), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
