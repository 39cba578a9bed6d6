"""Build LeRobot policy configs from a policy's name and plain fields."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import draccus
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim.optimizers import MultiAdamConfig

from foundation.text import did_you_mean
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot.registry import config_class, missing_dependency

logger = logging.getLogger(__name__)

# Set by the data and the trainer, not by the caller.
RUNTIME_FIELDS = frozenset({"input_features", "output_features", "device"})
# Nothing here uploads a policy by itself; LeRobot's default would demand a repository name.
FIXED: Mapping[str, Any] = {"push_to_hub": False, "device": "cpu"}
# Other names of fields, by policy.
ALIASES: Mapping[str, Mapping[str, str]] = {"act": {"hidden_dim": "dim_model"}}
LEARNING_RATE = "optimizer_lr"

type Features = dict[str, PolicyFeature]


def policy_config(policy_name: str, fields: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """Return LeRobot's config of the policy ``policy_name``.

    If ``chunk_size`` is given alone and LeRobot's default of ``n_action_steps`` is larger, that is
    set to ``chunk_size``; LeRobot would refuse.

    Args:
        policy_name: A name in LeRobot's registry, e.g. ``act``.
        fields: Values for fields of its config; names of enum members and other plain forms, as
            they come from a command line, are converted as LeRobot converts them.

    Raises:
        GetiactionError: an unknown policy or field (with the nearest one), a value refused, or a
            package missing (with the extra that installs it).
    """
    found = config_class(policy_name)
    allowed = {f.name for f in dataclasses.fields(found) if f.init} - RUNTIME_FIELDS
    given = _without_aliases(policy_name, fields or {})
    for name in given:
        if name not in allowed:
            raise GetiactionError(
                f"policy {policy_name!r} has no field {name!r}{did_you_mean(name, allowed)}"
            )
    _fit_steps_to_chunk(found, given)
    try:
        plain = {name: draccus.encode(value) for name, value in {**FIXED, **given}.items()}
        config: PreTrainedConfig = draccus.decode(found, plain)
    except ImportError as error:
        raise missing_dependency(policy_name, error) from error
    except (draccus.utils.DecodingError, draccus.utils.ParsingError) as error:
        reason = error.__cause__ or error
        if isinstance(reason, ImportError):
            raise missing_dependency(policy_name, reason) from error
        raise GetiactionError(f"policy {policy_name!r} refuses its fields: {reason}") from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise GetiactionError(f"policy {policy_name!r} refuses its fields: {error}") from error
    return config


def require_trainable(config: PreTrainedConfig) -> None:
    """Refuse a policy that LeRobot trains online, recognised by its several optimizers.

    Raises:
        GetiactionError: ``gaussian_actor``, and plugins like it.
    """
    if isinstance(config.get_optimizer_preset(), MultiAdamConfig):
        raise GetiactionError(
            f"policy {config.type!r} cannot be trained from a dataset: it gives no loss, and has "
            "an optimizer for each of its parts; train it online with lerobot.rl"
        )


def with_learning_rate(config: PreTrainedConfig, learning_rate: float | None) -> PreTrainedConfig:
    """Return ``config`` with ``learning_rate`` as ``optimizer_lr``; None keeps LeRobot's.

    Raises:
        GetiactionError: the policy has no such field.
    """
    if learning_rate is None:
        return config
    if not hasattr(config, LEARNING_RATE):
        raise GetiactionError(
            f"policy {config.type!r} has no {LEARNING_RATE!r} that a learning_rate could set; "
            "give an optimizer instead"
        )
    changed: PreTrainedConfig = dataclasses.replace(config, **{LEARNING_RATE: float(learning_rate)})
    return changed


def split_features(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> tuple[Features, Features]:
    """Split features by type: actions are outputs, all others inputs.

    Both may be the same mapping of all features of a dataset. An action left among the inputs
    would reach the policy as an observation.

    Args:
        inputs: ``PolicyFeature`` by key, or a plain ``{"type": ..., "shape": ...}``.
        outputs: The same; features other than actions are left out.

    Raises:
        GetiactionError: there is no action among ``outputs``, or a feature of another form.
    """
    going_in = {k: _feature(k, v) for k, v in inputs.items()}
    coming_out = {k: _feature(k, v) for k, v in outputs.items()}
    actions = {k: v for k, v in coming_out.items() if v.type is FeatureType.ACTION}
    if not actions:
        raise GetiactionError(
            f"there is no action among the output features: {', '.join(outputs) or 'none given'}"
        )
    return {k: v for k, v in going_in.items() if v.type is not FeatureType.ACTION}, actions


def normalise_environment_state(config: PreTrainedConfig, features: Mapping[str, Any]) -> None:
    """Normalise environment state like robot state, unless ``config`` has a mode for it.

    LeRobot's defaults have no mode for it, and its normaliser passes features without one
    unchanged.
    """
    mapping = getattr(config, "normalization_mapping", None)
    present = any(feature.type is FeatureType.ENV for feature in features.values())
    if mapping is not None and present:
        mapping.setdefault(FeatureType.ENV.value, mapping.get("STATE", NormalizationMode.MEAN_STD))


def _without_aliases(policy_name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(fields)
    for alias, name in ALIASES.get(policy_name, {}).items():
        if alias in given:
            if name in given:
                raise GetiactionError(f"{alias!r} is another name of {name!r}; give one of them")
            given[name] = given.pop(alias)
    return given


def _fit_steps_to_chunk(found: type[PreTrainedConfig], given: dict[str, Any]) -> None:
    steps = next((f.default for f in dataclasses.fields(found) if f.name == "n_action_steps"), None)
    chunk = given.get("chunk_size")
    if "n_action_steps" in given or not (isinstance(steps, int) and isinstance(chunk, int)):
        return
    if steps > chunk:
        given["n_action_steps"] = chunk
        logger.info("n_action_steps is %d, as many as the chunk has, not %d", chunk, steps)


def _feature(key: str, value: Any) -> PolicyFeature:
    if isinstance(value, PolicyFeature):
        return value
    try:
        return PolicyFeature(type=FeatureType(value["type"]), shape=tuple(value["shape"]))
    except (TypeError, KeyError, ValueError) as error:
        raise GetiactionError(
            f"feature {key!r} is not a PolicyFeature: expected one, or a mapping with its 'type' "
            f"({', '.join(t.value for t in FeatureType)}) and 'shape'; a dataset's features become "
            "such by lerobot's dataset_to_policy_features"
        ) from error
