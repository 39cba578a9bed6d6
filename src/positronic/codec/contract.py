"""Contract: the JSON document of a training's interface, checked between any two sides."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from foundation.documents import Document, Reader, plain
from foundation.files import replace_text
from foundation.text import printable
from positronic.codec.base import Codec
from positronic.codec.documents import completed, from_spec, older_form, require_sized
from positronic.codec.fields import LONGEST_NAME, MOST_NUMBERS, MOST_PIXELS, key_of
from positronic.errors import CodecError, ContractError

FILE_NAME = "contract.json"

# Unknown in a dataset, before a policy is trained; None on either side matches any value.
_OPEN = ("chunk_size", "n_action_steps", "stats_digest", "feature_digests")
# Not compared.
_INFORMATIVE = ("versions",)
# Determined by the codec.
_CODEC_MAKES = ("codec", "inputs", "features")

_READER = Reader(
    error=ContractError,
    mend="take it from the dataset or checkpoint that it was written for",
    size=1 << 20,
    depth=40,
    values=200_000,
)


def _name(text: str) -> str:
    if not 0 < len(text) <= LONGEST_NAME or not text.isprintable():
        raise ValueError(f"expected 1 to {LONGEST_NAME} printable characters")
    return text


def _key(text: str) -> str:
    try:
        return key_of(text, "it")
    except CodecError:
        raise ValueError("expected the name of a feature, without slashes") from None


_Name = Annotated[str, AfterValidator(_name)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Fps = Annotated[float, Field(ge=0.1, le=1000)]


class _Feature(Document):
    """One feature as LeRobot describes it."""

    dtype: Literal[
        "video", "image", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"
    ]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=4)]
    names: list[_Name] | None = None

    @model_validator(mode="after")
    def _is_of_a_size(self) -> Self:
        if self.dtype in ("video", "image"):
            if len(self.shape) != 3 or self.shape[2] != 3 or max(self.shape) > MOST_PIXELS:
                raise ValueError(f"expected an image shape, at most {MOST_PIXELS} per side")
        elif math.prod(self.shape) > MOST_NUMBERS:
            raise ValueError(f"expected at most {MOST_NUMBERS} numbers")
        return self


class _CodecOf(Document):
    name: Annotated[str, Field(max_length=LONGEST_NAME * 40)]
    spec: dict[str, Any]


class _PartialContract(Document):
    """The contract in a server's ready message; public servers may leave out any field."""

    codec: _CodecOf | None = None
    inputs: Annotated[list[_Name], Field(max_length=10_000)] | None = None
    features: dict[Annotated[str, AfterValidator(_key)], _Feature] | None = None
    fps: _Fps | None = None
    chunk_size: _Count | None = None
    n_action_steps: _Count | None = None
    pose: dict[str, Any] = Field(default_factory=dict)
    grip: dict[str, Any] = Field(default_factory=dict)
    stats_digest: _Digest | None = None
    feature_digests: dict[str, _Digest] | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _plays_what_it_predicts(self) -> Self:
        played, predicted = self.n_action_steps, self.chunk_size
        if played is not None and predicted is not None and played > predicted:
            raise ValueError(
                f"n_action_steps is {played}, expected at most the chunk_size of {predicted}"
            )
        return self


class _CompleteContract(_PartialContract):
    """A contract as stored in files."""

    codec: _CodecOf
    inputs: Annotated[list[_Name], Field(max_length=10_000)]
    features: dict[Annotated[str, AfterValidator(_key)], _Feature]
    fps: _Fps


@dataclass(frozen=True)
class Contract:
    """Interface shared by a dataset, a checkpoint and a session.

    Attributes:
        codec: ``{"name", "spec"}`` of the codec; `make_codec` creates it.
        inputs: raw signals that an observation must have.
        features: LeRobot features with names, shapes and dtypes, in order.
        fps: rows, and so actions, per second.
        chunk_size: number of actions predicted at once; None in a dataset.
        n_action_steps: number of these that are executed; None in a dataset.
        pose: representation of poses.
        grip: values of an open and a closed grip, in raw signals and on the wire.
        stats_digest: `stats_digest` of the normalisation statistics.
        feature_digests: the same per feature; training may replace an image's statistics by those
            of ImageNet, and the other features can still be compared.
        versions: packages that wrote it; informative, never compared.
    """

    codec: dict[str, Any]
    inputs: list[str]
    features: dict[str, dict[str, Any]]
    fps: float
    chunk_size: int | None = None
    n_action_steps: int | None = None
    pose: dict[str, Any] = field(default_factory=dict)
    grip: dict[str, Any] = field(default_factory=dict)
    stats_digest: str | None = None
    feature_digests: dict[str, str] | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, codec: Codec, *, fps: float, stats: Mapping[str, Any] | None = None) -> Self:
        """The contract of a dataset of ``codec`` at ``fps``; CodecError if a size is open in it."""
        require_sized(codec)
        contract = cls.from_json(
            {
                "codec": {"name": codec.name, "spec": codec.to_spec()},
                "inputs": codec.inputs,
                "features": codec.features,
                "fps": fps,
                "pose": codec.meta.get("pose", {}),
                "grip": codec.meta.get("grip", {}),
                "versions": versions(),
            }
        )
        return contract if stats is None else contract.with_statistics(stats)

    @classmethod
    def from_json(cls, document: Mapping[str, Any], source: str = "the contract") -> Self:
        """The contract from a JSON document; fields of newer versions are ignored.

        Args:
            document: parsed JSON, or values that can be written as JSON.
            source: its origin, for error messages.

        Raises:
            ContractError: a field is missing, has another type, or is out of range.
        """
        try:
            # Normalised through JSON, so that it equals the same contract read from a file.
            document = plain(dict(document))
        except (TypeError, ValueError, RecursionError) as error:
            raise ContractError(f"{source} is not a contract: {printable(error)}") from error
        return cls._of_document(document, source)

    @classmethod
    def _of_document(cls, document: Mapping[str, Any], source: str) -> Self:
        known = {f.name for f in dataclasses.fields(cls)}
        document = {name: value for name, value in document.items() if name in known}
        _READER.validate(document, _CompleteContract, source)
        return cls(**document)

    @classmethod
    def parse(cls, content: bytes | str, source: str) -> Self:
        """The contract from JSON text of ``source``; as `from_json`."""
        return cls._of_document(_READER.parse_json(content, dict, source), source)

    def to_json(self) -> dict[str, Any]:
        """The JSON document, as stored in files and sent in the ready message."""
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read ``contract.json``; ``path`` is the file or its directory.

        Raises:
            ContractError: the file is missing, or not a contract.
        """
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        try:
            return cls._of_document(_READER.load_json(file, dict), str(file))
        except FileNotFoundError as error:
            raise ContractError(
                f"{file} does not exist; datasets of `positronic-to-lerobot convert` "
                "and checkpoints trained on them have a contract"
            ) from error
        except OSError as error:
            raise ContractError(f"{file} cannot be read: {error.strerror}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``contract.json`` atomically; ``path`` as in `load`."""
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        replace_text(file, json.dumps(self.to_json(), indent=2) + "\n")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def with_statistics(self, stats: Mapping[str, Any]) -> Self:
        """A copy with the digests of LeRobot's ``stats``."""
        return self.replace(
            stats_digest=stats_digest(stats, self.features),
            feature_digests={n: stats_digest(stats, [n]) for n in self.features if n in stats},
        )

    def make_codec(self) -> Codec:
        """Create the codec of this contract.

        Raises:
            CodecError: this version has no such codec.
        """
        return from_spec(self.codec["spec"])

    def require_made(self, codec: Codec) -> None:
        """Check that the contract's features are those that ``codec``, its own, makes.

        Raises:
            ContractError: they differ; the message has both.
        """
        made = {name: list(feature["shape"]) for name, feature in codec.features.items()}
        stated = {name: list(feature["shape"]) for name, feature in self.features.items()}
        if made != stated:
            raise ContractError(
                f"the contract states the features {_short(stated)}, but its codec makes"
                f" {_short(made)}; take it from the dataset or checkpoint that it was written for"
            )

    def adopt(self, codec: Codec) -> Codec:
        """Return ``codec``, or its older form if this contract was made with that.

        A codec given by name follows the rules of this version; a dataset or checkpoint of an older
        version keeps the rules that it was made with. Sizes that are open in it are the contract's.
        """
        codec = completed(codec, self.codec["spec"])
        older = older_form(codec)
        return older if plain(older.to_spec()) == self.codec["spec"] else codec

    def codec_differences(self, codec: Codec) -> list[str]:
        """Parameters in which ``codec`` differs from this contract's codec, its value last."""
        found: list[str] = []
        _compare("", self.codec["spec"], plain(codec.to_spec()), found)
        return found

    def differences(self, other: "Contract") -> list[str]:
        """Descriptions of the fields that differ: ``"fps: 15 against 10"``."""
        return _differ(self, other, [f.name for f in dataclasses.fields(self)])

    def require_same(
        self, other: "Contract", here: str, there: str, *, ignore: Collection[str] = ()
    ) -> None:
        """Check that two sides have the same contract.

        Versions may differ; None on one side matches any value; images stored as video and as PNG
        match.

        Args:
            other: the other side's contract.
            here: owner of this contract, for the message.
            there: owner of the other contract.
            ignore: fields not to compare, such as ``stats_digest`` when appending.

        Raises:
            ContractError: with both sides, each difference and the remedy.
        """
        names = [
            f.name
            for f in dataclasses.fields(self)
            if f.name not in _INFORMATIVE
            and f.name not in ignore
            and not (f.name in _OPEN and None in (getattr(self, f.name), getattr(other, f.name)))
        ]
        ours, theirs = self.codec.get("name"), other.codec.get("name")
        if ours != theirs and "codec" in names:
            # Another codec differs in many fields: report only the names.
            found = [f"codec {ours!r} against {theirs!r}"]
            names = [name for name in names if name not in _CODEC_MAKES]
        else:
            found = []
        found += _differ(_unstored(self), _unstored(other), names)
        if found:
            raise ContractError(
                f"{here} and {there} disagree: {'; '.join(found)}. "
                "Use the codec, dataset and checkpoint that belong together"
            )


def stats_digest(stats: Mapping[str, Any], features: Collection[str] | None = None) -> str:
    """sha256 over normalisation statistics (LeRobot's ``meta/stats.json``), hex.

    It does not depend on how the numbers were stored: values are converted to float32, as in a
    policy's normaliser, names are sorted, shapes and counts left out. ``features`` restricts it to
    these (a row's index is not normalised).

    Raises:
        ContractError: they are not statistics.
    """
    digest = hashlib.sha256()
    for name in sorted(stats if features is None else set(features) & set(stats)):
        if not isinstance(stats[name], Mapping):
            raise ContractError(f"{printable(name)!r} has no valid statistics; convert again")
        for statistic in sorted(set(stats[name]) - {"count"}):
            value = _numbers(stats[name][statistic], f"{name}.{statistic}")
            digest.update(f"{name}\0{statistic}\0{value.size}\0".encode())
            digest.update((value + np.float32(0.0)).tobytes())  # -0.0 becomes 0.0
    return digest.hexdigest()


def _numbers(value: Any, what: str) -> NDArray[np.float32]:
    try:
        # A number out of float32's range becomes infinite, which differs from any finite one.
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=np.float64).astype("<f4").ravel()
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            f"the statistic {printable(what)!r} does not consist of numbers; convert again"
        ) from error


def versions() -> dict[str, str]:
    """Installed versions of the packages that affect a conversion's result."""
    packages = ("positronic-lightning", "lerobot", "numpy", "pillow", "av", "torch")
    found = {package: _version(package) for package in packages}
    return {package: version for package, version in found.items() if version is not None}


@cache
def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _unstored(contract: Contract) -> Contract:
    features = {
        name: {k: "image" if k == "dtype" and v == "video" else v for k, v in feature.items()}
        for name, feature in contract.features.items()
    }
    return contract.replace(features=features)


def _differ(a: Contract, b: Contract, names: Collection[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        _compare(name, getattr(a, name), getattr(b, name), found)
    return found


def _compare(path: str, a: Any, b: Any, found: list[str]) -> None:
    """Find the smallest parts that differ, to keep messages short."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            _compare(_join(path, key), a.get(key), b.get(key), found)
        if set(a) == set(b) and list(a) != list(b) and path == "features":
            found.append(f"order of {path}: {', '.join(a)} against {', '.join(b)}")
    elif _are_dicts(a) and _are_dicts(b) and len(a) == len(b):
        for index, (ours, theirs) in enumerate(zip(a, b, strict=True)):
            # Parts of a codec are identified by their feature's key.
            key = ours.get("key")
            name = key if isinstance(key, str) and key == theirs.get("key") else index
            _compare(_join(path, name), ours, theirs, found)
    elif a != b:
        found.append(f"{path}: {_short(a)} against {_short(b)}")


def _join(path: str, name: object) -> str:
    shown = printable(name, 60)
    return f"{path}.{shown}" if path else shown


def _are_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    return printable(json.dumps(value), 100)


def told(document: Any, source: str) -> Mapping[str, Any]:
    """Return the contract in a server's ready message; empty without. ContractError as above."""
    if document is None:
        return {}
    _READER.validate(document, _PartialContract, source)
    return dict(document)
