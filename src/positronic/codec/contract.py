"""The contract: one small JSON document that says what was trained, checked at every border."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from positronic.codec.base import Codec, from_spec
from positronic.errors import ContractError

FILE_NAME = "contract.json"

# Left open in a dataset, which knows nothing of the policy; where one side has None, it agrees.
_OPEN = ("chunk_size", "n_action_steps", "stats_digest", "feature_digests")
# Not what was trained, but who wrote it down.
_INFORMATIVE = ("versions",)
# What follows from the codec.
_CODEC_MAKES = ("codec", "inputs", "features")


@dataclass(frozen=True)
class Contract:
    """What a dataset, a checkpoint and a session agree on.

    Attributes:
        codec: ``{"name", "spec"}`` of the codec; `make_codec` builds it.
        inputs: raw signals that an observation must hold.
        features: LeRobot features with names, shapes and dtypes, in order.
        fps: rows, and so actions, per second.
        chunk_size: actions that the policy predicts at once; None in a dataset.
        n_action_steps: how many of them are played; None in a dataset.
        pose: how poses are written.
        grip: which numbers mean open and closed on the raw side and on the wire.
        stats_digest: `stats_digest` of the normalisation statistics.
        feature_digests: the same of each feature alone; training may put ImageNet's statistics in
            place of an image's own, and the others can be told to be untouched all the same.
        versions: packages that wrote it; informative, never a reason to refuse.
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
        """The contract of a dataset made by ``codec`` at ``fps``, with LeRobot's ``stats``."""
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
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The contract of a JSON document; fields of a newer version are left out.

        Raises:
            ContractError: a field that must be there is missing.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        try:
            # Through JSON, so that a contract made here equals the same one read from a file.
            plain = json.loads(json.dumps({k: v for k, v in document.items() if k in known}))
            return cls(**plain)
        except (TypeError, AttributeError) as error:
            raise ContractError(f"not a contract: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The JSON document, as it is kept in files and sent in the ready message."""
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read ``contract.json``; ``path`` is the file, or the folder that holds it.

        Raises:
            ContractError: there is no such file, or it is not a contract.
        """
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        try:
            return cls.from_json(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise ContractError(
                f"{file} does not exist; datasets of `positronic-to-lerobot convert` "
                "and checkpoints trained on them carry a contract"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ContractError(f"{file} is not JSON: {error}") from error
        except ContractError as error:
            raise ContractError(f"{file} is {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``contract.json`` at once or not at all; ``path`` as in `load`."""
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        staged = file.with_name(f".{file.name}.{os.getpid()}")
        staged.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        staged.replace(file)

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
        """The codec this contract was made with."""
        return from_spec(self.codec["spec"])

    def differences(self, other: "Contract") -> list[str]:
        """Every field that differs, in words: ``"fps: 15 against 10"``."""
        return _differ(self, other, [f.name for f in dataclasses.fields(self)])

    def require_same(
        self, other: "Contract", here: str, there: str, *, ignore: Collection[str] = ()
    ) -> None:
        """Refuse a border across which something that was trained would change.

        Versions may differ; what one side leaves open (None) agrees with anything; an image is
        the same thing whether it is stored in a video or as a picture.

        Args:
            other: the other side's contract.
            here: what this contract belongs to, for the message.
            there: what the other contract belongs to.
            ignore: fields this border does not bind, such as ``stats_digest`` when appending.

        Raises:
            ContractError: naming both sides, each difference and the mend.
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
            # Another codec differs in all that it makes; its name says it in two words.
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

    The same numbers give the same digest whichever way they were stored: values are taken as
    float32, which is what a policy's normaliser holds, names in sorted order, shapes and counts
    left out. ``features`` restricts it to those (a row's index is not normalised).
    """
    digest = hashlib.sha256()
    for name in sorted(stats if features is None else set(features) & set(stats)):
        for statistic in sorted(set(stats[name]) - {"count"}):
            value = np.asarray(stats[name][statistic], dtype=np.float64).astype("<f4").ravel()
            digest.update(f"{name}\0{statistic}\0{value.size}\0".encode())
            digest.update((value + np.float32(0.0)).tobytes())  # -0.0 becomes 0.0
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide what is written."""
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
    """Descend to the smallest parts that differ, so that a message can be read."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            _compare(f"{path}.{key}", a.get(key), b.get(key), found)
        if set(a) == set(b) and list(a) != list(b) and path == "features":
            found.append(f"order of {path}: {', '.join(a)} against {', '.join(b)}")
    elif _are_dicts(a) and _are_dicts(b) and len(a) == len(b):
        for index, (ours, theirs) in enumerate(zip(a, b, strict=True)):
            _compare(f"{path}.{index}", ours, theirs, found)
    elif a != b:
        found.append(f"{path}: {_short(a)} against {_short(b)}")


def _are_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
