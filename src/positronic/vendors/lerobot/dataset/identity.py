"""Codec and contract of a LeRobot dataset that has none: its features as they are."""

from collections.abc import Mapping
from typing import Any

from getiaction.dataset_info import DatasetInfo
from getiaction.policies.safety import Features
from positronic.codec import Contract, LeRobotFeatures
from positronic.codec.fields import LONGEST_NAME
from positronic.codec.lerobot_features import IMAGES, NUMBERS
from positronic.vendors.lerobot.dataset.layout import is_depth, size_of

# As LeRobot sorts a dataset's features into those that a policy sees, and those that it predicts.
PREFIXES = ("observation", "action")


def identity_contract(info: DatasetInfo) -> Contract:
    """Return the contract of the features that LeRobot's policies use, without statistics.

    Features of other kinds, such as text, depth and matrices, are left out: a policy that takes one
    is refused when it is to be served.

    Raises:
        CodecError: a name is unusable, or a size is absurd.
    """
    return Contract.of(codec_of(info), fps=info.fps)


def codec_of(info: DatasetInfo) -> LeRobotFeatures:
    """Return the codec of `identity_contract`."""
    features: dict[str, dict[str, Any]] = {}
    for name, feature in info.features.items():
        shape, described = list(feature.shape), feature.model_dump()
        if feature.dtype in IMAGES and len(shape) == 3:
            if not is_depth(described):
                names = ["height", "width", "channels"]
                described |= {"shape": [*size_of(described), 3], "names": names}
                features[name] = described
        elif feature.dtype in NUMBERS and len(shape) == 1 and name.startswith(PREFIXES):
            features[name] = described | {"names": _names(feature.names, shape[0])}
    return LeRobotFeatures.of(features)


def codec_of_policy(
    inputs: Features | None, outputs: Features | None, names: Mapping[str, Any]
) -> LeRobotFeatures:
    """Return the codec of a policy's features, as its ``config.json`` has them.

    Args:
        inputs: The policy's input features.
        outputs: Its output features.
        names: Of the elements of vectors, as a dataset has them, where it is known.

    Raises:
        CodecError: one of them is neither a vector nor an image of three channels.
    """
    features: dict[str, dict[str, Any]] = {}
    for name, feature in {**(inputs or {}), **(outputs or {})}.items():
        if feature.type == "VISUAL":
            channels, *size = feature.shape or [0]
            features[name] = {"dtype": "image", "shape": [*size, channels]}
        else:
            elements = _names(names.get(name), *feature.shape) if len(feature.shape) == 1 else None
            features[name] = {"dtype": "float32", "shape": feature.shape, "names": elements}
    return LeRobotFeatures.of(features)


def _names(names: Any, size: int) -> list[str] | None:
    """Return the names of a vector's elements, which datasets write in several ways, or None."""
    if isinstance(names, Mapping):
        values = list(names.values())
        if all(type(value) is int for value in values):  # name: index
            names = sorted(names, key=names.__getitem__)
        else:  # such as {"motors": [...]}, or by axis
            names = [each for value in values if isinstance(value, list) for each in value]
    if not isinstance(names, list) or len(names) != size:
        return None
    whole = all(
        isinstance(each, str) and 0 < len(each) <= LONGEST_NAME and each.isprintable()
        for each in names
    )
    return names if whole else None
