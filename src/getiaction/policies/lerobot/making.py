"""Make a policy's network and processors: for a dataset, from features, or from a checkpoint."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE, REWARD
from lerobot.utils.feature_utils import dataset_to_policy_features

from foundation.documents import plain
from foundation.errors import FoundationError
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot.configs import normalise_environment_state
from getiaction.policies.lerobot.registry import (
    config_class,
    log_loading,
    missing_dependency,
    register_steps,
)
from getiaction.policies.safety import (
    CONFIG,
    READER,
    SELF_CONTAINED,
    Processor,
    Step,
    read_config,
    require_safe,
    require_safe_processors,
)

type Stats = Mapping[str, Mapping[str, Any]]
type Made = tuple[Any, Any, Any]

BACKBONE = "pretrained_backbone_weights"
# Statistics that LeRobot's normaliser reads; without them it silently passes a feature unchanged.
NEEDED_STATS: Mapping[NormalizationMode, tuple[str, ...]] = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}


def make_for_dataset(config: PreTrainedConfig, meta: Any, pretrained: Path | None = None) -> Made:
    """Make network, preprocessor and postprocessor for a dataset, as ``lerobot-train`` does.

    Args:
        config: Gets the dataset's features. Weights at its ``pretrained_path`` are fine-tuned, with
            the dataset's statistics.
        meta: LeRobot's metadata: features and statistics.
        pretrained: A native ``pretrained_model`` to resume from, with weights, processors and the
            statistics that the weights were trained on.

    Raises:
        GetiactionError: the dataset lacks what the policy needs.
    """
    features = dataset_to_policy_features(meta.features)
    if ACTION not in features:
        raise GetiactionError(f"the dataset has no {ACTION!r}; it has: {', '.join(features)}")
    if config.reward_delta_indices is not None and REWARD not in meta.features:
        raise GetiactionError(
            f"policy {config.type!r} learns from rewards, and the dataset has no {REWARD!r}; "
            f"it has: {', '.join(meta.features)}"
        )
    normalise_environment_state(config, features)
    require_statistics(config, features, meta.stats)
    tuned = config.pretrained_path
    config.pretrained_path = pretrained or tuned
    try:
        with explained(config):
            network = make_policy(cfg=config, ds_meta=meta)
            if pretrained is None:
                before, after = make_pre_post_processors(
                    policy_cfg=config, dataset_stats=meta.stats
                )
            else:
                before, after = load_processors(config, pretrained, own=steps_of(config))
    finally:
        # A resumed run is the same run: its config stays the same.
        config.pretrained_path = None
        vars(config).pop("_runtime_dataset_meta", None)
    # A loaded policy comes in evaluation mode.
    return _ready(network.train()), before, after


def make_for_features(config: PreTrainedConfig, stats: Stats | None) -> Made:
    """Make network, preprocessor and postprocessor for the features of ``config``.

    Raises:
        GetiactionError: statistics are missing, or features do not suit the policy.
    """
    features = {**config.input_features, **config.output_features}
    normalise_environment_state(config, features)
    require_statistics(config, features, stats)
    with explained(config):
        network = get_policy_class(config.type)(config=config, dataset_stats=stats)
        before, after = make_pre_post_processors(policy_cfg=config, dataset_stats=stats)
    return _ready(network.to(config.device)), before, after


def make_without_weights(config: PreTrainedConfig) -> Any:
    """Make the network of ``config``, to load weights into; fetches no backbone weights."""
    with explained(config), without_backbone_weights(config):
        return _ready(get_policy_class(config.type)(config=config).to(config.device))


def load_native(path: Path, *, trusted: bool = False) -> tuple[PreTrainedConfig, Made]:
    """Load LeRobot's ``pretrained_model`` onto the CPU.

    Args:
        path: Its local directory.
        trusted: Let it load models and code that it names, see :mod:`getiaction.policies.safety`.

    Raises:
        GetiactionError: there is none, a package is missing, or loading it would be unsafe.
    """
    try:
        require_safe(path, trusted=trusted)
        config_class(read_config(path / CONFIG).type)
        config: PreTrainedConfig = PreTrainedConfig.from_pretrained(path)
        config.device, config.pretrained_path = "cpu", None
        log_loading()
        with explained(config, path), without_backbone_weights(config):
            network = get_policy_class(config.type).from_pretrained(path, config=config)
            before, after = load_processors(config, path, trusted=trusted)
    except FoundationError:
        raise
    except Exception as error:  # any error of LeRobot, draccus, torch and safetensors
        raise GetiactionError(f"no policy can be loaded from {path}: {_line(error)}") from error
    return config, (_ready(network), before, after)


def _ready(network: Any) -> Any:
    if network.config.type == "tdmpc":
        from getiaction.policies.lerobot.quirks import accept_any_camera

        accept_any_camera(network)
    return network


def steps_of(config: PreTrainedConfig) -> list[Step]:
    """Return the processor steps that LeRobot itself makes for a user's config.

    A checkpoint resumed with that config may hold the same ones.
    """
    if config.type in SELF_CONTAINED:
        return []
    made = make_pre_post_processors(policy_cfg=config, dataset_stats={})
    packed = (plain(processor.get_config()) for processor in made)
    return [step for each in packed for step in READER.validate(each, Processor, "LeRobot").steps]


def load_processors(
    config: PreTrainedConfig,
    path: Path,
    stats: Stats | None = None,
    *,
    trusted: bool = False,
    own: Sequence[Step] = (),
) -> tuple[Any, Any]:
    """Load both processors as they were saved, except for the device.

    Args:
        config: The policy's config.
        path: Directory of LeRobot's processor files.
        stats: Statistics of another dataset, which replace those that were saved.
        trusted: Let them load models and code that they name, see
            :mod:`getiaction.policies.safety`.
        own: Steps that are allowed although they are not trusted.

    Raises:
        GetiactionError: they hold steps that are not allowed.
    """
    require_safe_processors(path, str(path), trusted=trusted, known=own)
    register_steps(path)
    before: dict[str, Any] = {"device_processor": {"device": config.device}}
    after: dict[str, Any] = {}
    if stats is not None:
        # The overrides of native training when it starts from a pretrained policy.
        norm_map = config.normalization_mapping
        features = {**config.input_features, **config.output_features}
        theirs = {"norm_map": norm_map, "stats": stats}
        before["normalizer_processor"] = {"features": features, **theirs}
        before["rename_observations_processor"] = {"rename_map": {}}
        after["unnormalizer_processor"] = {"features": config.output_features, **theirs}
        if getattr(config, "use_relative_actions", False):
            before["relative_actions_processor"] = {
                "enabled": True,
                "exclude_joints": getattr(config, "relative_exclude_joints", []),
                "action_names": getattr(config, "action_feature_names", None),
            }
            after["absolute_actions_processor"] = {"enabled": True}
    loaded: tuple[Any, Any] = make_pre_post_processors(
        policy_cfg=config,
        pretrained_path=str(path),
        preprocessor_overrides=before,
        postprocessor_overrides=after,
        # Read by the loaders of Groot and EVO1.
        **({} if stats is None else {"dataset_stats": stats}),
    )
    return loaded


def require_statistics(
    config: PreTrainedConfig, features: Mapping[str, Any], stats: Stats | None
) -> None:
    """Refuse statistics that are incomplete for the features' normalisation modes.

    Raises:
        GetiactionError: names the features.
    """
    mapping = getattr(config, "normalization_mapping", None) or {}
    bare = []
    for name, feature in features.items():
        mode = mapping.get(FeatureType(feature.type).value, NormalizationMode.IDENTITY)
        needed = NEEDED_STATS.get(NormalizationMode(mode), ())
        if any(kind not in (stats or {}).get(name, {}) for kind in needed):
            bare.append(name)
    if bare:
        kinds = sorted({k for mode in mapping.values() for k in NEEDED_STATS.get(mode, ())})
        raise GetiactionError(
            f"the dataset has no statistics of: {', '.join(bare)}; policy {config.type!r} "
            f"normalises by {', '.join(kinds)}, so have LeRobot compute them, or give dataset_stats"
        )


def needed_observations(config: PreTrainedConfig, preprocessor: Any) -> tuple[str, ...]:
    """Return the keys that the policy needs to act, as named before any renaming."""
    original = {
        new: old
        for step in preprocessor.steps
        for old, new in (getattr(step, "rename_map", None) or {}).items()
    }
    # Policies with this field replace missing cameras.
    cameras = () if hasattr(config, "empty_cameras") else tuple(config.image_features)
    states = tuple(key for key in (OBS_STATE, OBS_ENV_STATE) if key in config.input_features)
    return tuple(original.get(key, key) for key in cameras + states)


@contextlib.contextmanager
def without_backbone_weights(config: PreTrainedConfig) -> Iterator[None]:
    """Context in which a network is made without fetching its backbone's pretrained weights."""
    named = getattr(config, BACKBONE, None)
    if named is None:
        yield
        return
    setattr(config, BACKBONE, None)
    try:
        yield
    finally:
        setattr(config, BACKBONE, named)


@contextlib.contextmanager
def explained(config: PreTrainedConfig, path: Path | None = None) -> Iterator[None]:
    """Context in which errors of making a policy, or loading it from ``path``, become one line."""
    path = path or config.pretrained_path
    try:
        yield
    except ImportError as error:
        raise missing_dependency(config.type, error) from error
    # PyTorch asserts, or fails, if numbers of a config are inconsistent.
    except (ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        what = "made for this dataset" if path is None else f"loaded from {path}"
        raise GetiactionError(f"policy {config.type!r} cannot be {what}: {_line(error)}") from error
    except OSError as error:
        weights = getattr(config, BACKBONE, None)
        if path is not None:
            raise GetiactionError(
                f"policy {config.type!r} cannot be loaded from {path}: {_line(error)}"
            ) from error
        if weights is None:
            raise
        raise GetiactionError(
            f"the backbone weights {weights} could not be downloaded ({error}); put them into "
            f"{torch.hub.get_dir()}/checkpoints, or train the backbone from scratch by "
            f"{BACKBONE}=None"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
