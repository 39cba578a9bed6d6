"""Contract of a checkpoint that has none: LeRobot's own training writes neither codec nor rate.

The features are those of the policy's config; rate and names of elements are those of the dataset
that ``train_config.json`` names, if it lies on this machine. Nothing is looked up on the Hub.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from foundation.documents import Document, InvalidDocument, Reader
from foundation.text import printable
from getiaction.policies.safety import PolicyConfig
from positronic.codec import Codec, Contract
from positronic.errors import CodecError, ContractError
from positronic.vendors.lerobot.dataset.identity import codec_of_policy

TRAIN_CONFIG = "train_config.json"
_READER = Reader(error=InvalidDocument)


class _Source(Document):
    repo_id: Annotated[str, Field(max_length=400)] | None = None
    root: Annotated[str, Field(max_length=4096)] | None = None
    # Of a Lightning checkpoint, which names no place.
    fps: Annotated[float, Field(strict=False, gt=0, le=1e6)] | None = None


class _TrainConfig(Document):
    dataset: _Source = _Source()


class _Feature(Document):
    shape: Any = None
    names: Any = None


class _Dataset(Document):
    """``meta/info.json`` of any version of LeRobot's format."""

    fps: Annotated[float, Field(strict=False, gt=0, le=1e6)]
    features: dict[str, _Feature] = Field(default_factory=dict)


def untold_contract(
    pretrained_model: Path,
    label: str,
    config: PolicyConfig,
    codec: Codec | None,
    fps: float | None,
) -> Contract:
    """Return the contract of a checkpoint without one.

    Args:
        pretrained_model: The directory of its files.
        label: Its name, for messages.
        config: Its policy's.
        codec: That of its training, if it was trained on a converted dataset; otherwise clients
            send the policy's features as they are.
        fps: Rate of the dataset, if the user gives it.

    Raises:
        ContractError: The rate is unknown, or ``fps`` is not that of the dataset; or the policy has
            features that cannot be served.
    """
    place, dataset = _dataset_of(pretrained_model, config)
    if dataset is not None and fps is not None and fps != dataset.fps:
        raise ContractError(
            f"--fps={fps:g}, but checkpoint {label} was trained on {printable(place, 200)}, which"
            f" has {dataset.fps:g} rows per second; leave --fps away"
        )
    rate = fps if dataset is None else dataset.fps
    if rate is None:
        named = (
            f"{printable(place, 200)}, which is not here, or another now" if place else "no dataset"
        )
        raise ContractError(
            f"checkpoint {label} does not say how many actions per second it makes: it has no"
            f" contract.json, and {TRAIN_CONFIG} names {named}; give the rate of its dataset, as in"
            " --fps=30"
        )
    try:
        known = {} if dataset is None else dataset.features
        names = {name: feature.names for name, feature in known.items()}
        own = codec_of_policy(config.input_features, config.output_features, names)
        sizes = {"chunk_size": config.chunk_size, "n_action_steps": config.n_action_steps}
        return Contract.of(codec or own, fps=rate).replace(**sizes)
    except CodecError as error:
        raise ContractError(f"checkpoint {label} cannot be served as it is: {error}") from error


def _dataset_of(pretrained_model: Path, config: PolicyConfig) -> tuple[str, _Dataset | None]:
    """The place of the dataset that the checkpoint names, and what it is, if it lies here.

    What lies there now may be another dataset, which has another rate: it must have the policy's
    features.
    """
    try:
        named = _READER.load_json(pretrained_model / TRAIN_CONFIG, _TrainConfig).dataset
    except (OSError, InvalidDocument):
        return "", None
    if named.fps is not None:
        return "its dataset", _Dataset(fps=named.fps)
    place = named.root or (str(_lerobot_home() / named.repo_id) if named.repo_id else "")
    if not place or "\0" in place:
        return "", None
    try:
        found = _READER.load_json(Path(place) / "meta/info.json", _Dataset)
    except (OSError, InvalidDocument):
        return place, None
    shapes = {name: feature.shape for name, feature in found.features.items()}
    wanted = {**(config.input_features or {}), **(config.output_features or {})}
    fits = (
        name in shapes and (feature.type == "VISUAL" or shapes[name] == feature.shape)
        for name, feature in wanted.items()
    )
    return place, found if all(fits) else None


def _lerobot_home() -> Path:
    """Where LeRobot keeps the datasets that it knows by name."""
    if home := os.environ.get("HF_LEROBOT_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "lerobot"
