"""Backend selection for a checkpoint: the requested one, or the fastest within tolerance."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from foundation.documents import Document, InvalidDocument, Reader, plain
from foundation.errors import FoundationError, MissingDependency, UsageError
from foundation.files import replace_text
from getiaction.export.manifest import NEEDS
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.serving.backends.base import TOLERANCES, Backend
from positronic.vendors.lerobot.serving.backends.equality import Reference
from positronic.vendors.lerobot.serving.backends.export_cache import (
    TITLES,
    ExportCache,
    ExportedBackend,
)
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint

_READER = Reader(size=1 << 20, depth=8, values=10_000)


EXPORTED = {"float32": ("openvino", "onnx"), "bf16": ("openvino",)}
# A faster forward pass has nothing to gain from an export.
FAST_S = 0.005
# Seconds of measurement per batch size, and its least and most rounds.
MEASURED_S, ROUNDS = 1.0, (3, 15)
type Batch = Mapping[str, NDArray[Any]]


class _Kept(Document):
    backend: str
    milliseconds: dict[str, Annotated[list[float], Field(max_length=10)]]
    conditions: list[Any]


@dataclass(frozen=True)
class Choice:
    """The fastest backend, as measured on this machine.

    Args:
        backend: Its name.
        milliseconds: By backend, the times of a batch of 1 and of 8.
    """

    backend: str
    milliseconds: dict[str, list[float]]

    @classmethod
    def load(cls, places: Sequence[Path], conditions: Sequence[Any]) -> Self | None:
        """Read the choice made under the same conditions; None if there is none."""
        for place in places:
            try:
                kept = _READER.load_json(place / _name(conditions), _Kept)
            except (OSError, InvalidDocument):
                continue
            if kept.conditions == plain(list(conditions)):
                return cls(kept.backend, kept.milliseconds)
        return None

    def save(self, places: Sequence[Path], conditions: Sequence[Any]) -> None:
        """Write it to the first writable one of ``places``; otherwise it is measured again."""
        document = {**asdict(self), "conditions": list(conditions)}
        for place in places:
            file = place / _name(conditions)
            try:
                place.mkdir(parents=True, exist_ok=True)
                replace_text(file, json.dumps(document, indent=2) + "\n")
                return
            except OSError:
                continue


def processor() -> str:
    """Return the CPU's model name, or "unknown"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _name(conditions: Sequence[Any]) -> str:
    digest = hashlib.sha256(json.dumps(list(conditions)).encode()).hexdigest()
    return f"choice-{digest[:12]}.json"


class Selection:
    """The backends available for an ACT checkpoint, each compared with its policy before use.

    Args:
        checkpoint: The checkpoint.
        features: Features of its codec, by key.
        eager: The loaded policy, in float32.
        precision: ``float32`` or ``bf16``.
        say: Called with messages on slow work and on the choice.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        features: Mapping[str, Mapping[str, Any]],
        eager: TorchBackend,
        precision: str,
        say: Callable[[str], None],
    ) -> None:
        self._checkpoint, self._eager = checkpoint, eager
        self._precision, self._say = precision, say
        looked_at = eager.policy.config.input_features
        self._features = {key: features[key] for key in looked_at if key in features}

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self._checkpoint, self._features, self._eager)

    @cached_property
    def _cache(self) -> ExportCache:
        return ExportCache(self._checkpoint, torch.get_num_threads(), self._say)

    def why_not_exported(self) -> str | None:
        """Return why only torch can compute this policy; None if exports can."""
        if self._eager.device != "cpu":
            return f"exports run on the CPU here, and the policy is on {self._eager.device}"
        return None

    def torch(self, *, compiled: bool = False) -> TorchBackend:
        """Return the torch backend, in the requested precision.

        Raises:
            CheckpointError: Its actions are not equal within the tolerance.
            UsageError: It cannot be compiled.
        """
        chosen = self._eager.at(self._precision)
        if compiled:
            self._compile(chosen)
        if compiled or self._precision != "float32":
            self._require_equal(chosen)
        return chosen

    def _compile(self, chosen: TorchBackend) -> None:
        reference = self._reference
        self._say(f"compiling {self._checkpoint.id}; on a CPU this takes minutes")
        try:
            with warnings.catch_warnings():
                # Not actionable for the user.
                warnings.filterwarnings("ignore", module=r"torch\b")
                chosen.compile()
                # Single observations and batches are compiled separately.
                for size in (1, 2):
                    chosen.predict_chunk(reference.batch_of(size))
        except Exception as error:  # whatever torch's compiler raises
            raise UsageError(f"--compile fails here: {_line(error)}; leave it away") from error

    def exported(self, backend: str) -> Backend:
        """Return an exported backend; export it if there is none.

        Raises:
            MissingDependency: A package is not installed.
            CheckpointError: It cannot be exported, or its actions are not equal.
        """
        for package in NEEDS[backend]:
            if find_spec(package) is None:
                raise MissingDependency(
                    f"--backend={backend} needs the package {package!r}:"
                    " pip install 'positronic-lightning[export]'"
                )
        try:
            found = self._cache.open(backend, self._precision)
            if found is not None and self._is_equal(found):
                return found
            made = self._cache.make(backend, self._precision, anew=found is not None)
        except FoundationError:
            raise
        except Exception as error:  # whatever torch's exporter and the runtimes raise
            raise CheckpointError(
                f"checkpoint {self._checkpoint.label} cannot be exported to {TITLES[backend]}:"
                f" {_line(error)}; use --backend=torch"
            ) from error
        self._require_equal(made)
        return made

    def fastest(self) -> Backend:
        """Return the fastest backend, measured once per machine."""
        if self.why_not_exported() is not None:
            return self.torch()
        names = [name for name in EXPORTED[self._precision] if all(map(find_spec, NEEDS[name]))]
        conditions = [
            *(self._cache.digest, processor(), torch.get_num_threads()),
            *(self._precision, torch.__version__, names),
        ]
        choice = Choice.load(self._cache.places, conditions)
        if choice is not None and choice.backend in ("torch", *names):
            try:
                return self.torch() if choice.backend == "torch" else self.exported(choice.backend)
            except FoundationError as error:
                self._say(f"measuring again: {error}")
        chosen, choice = self._measured(names)
        choice.save(self._cache.places, conditions)
        return chosen

    def _measured(self, names: list[str]) -> tuple[Backend, Choice]:
        zeros = {
            key: np.zeros((1, *f["shape"]), np.uint8 if len(f["shape"]) == 3 else np.float32)
            for key, f in self._features.items()
        }
        (seconds,) = _race({"torch": self._eager}, zeros).values()
        if seconds < FAST_S:
            return self.torch(), Choice("torch", {"torch": [seconds * 1e3]})
        sides: dict[str, Backend] = {}
        for name in ("torch", *names):
            try:
                sides[name] = self.torch() if name == "torch" else self.exported(name)
            except FoundationError as error:
                self._say(f"{name} is passed over: {error}")
        if not sides:
            raise CheckpointError(
                f"checkpoint {self._checkpoint.label} has no backend whose actions are equal in"
                f" --precision={self._precision}; use --precision=float32"
            )
        alone, eight = (_race(sides, self._reference.batch_of(size)) for size in (1, 8))
        # A single robot waits for the first, many for the second.
        chosen = min(sides, key=lambda name: alone[name] * eight[name])
        taken = ", ".join(f"{name} {alone[name] * 1e3:.1f}" for name in sides)
        self._say(f"{self._checkpoint.id} runs with {chosen}; ms an observation: {taken}")
        times = {name: [alone[name] * 1e3, eight[name] * 1e3] for name in sides}
        return sides[chosen], Choice(chosen, times)

    def _is_equal(self, found: ExportedBackend) -> bool:
        """Return whether a found export equals the policy, on examples and random observations."""
        try:
            # In bf16 the differences are too large to detect a changed graph.
            exact = found
            if found.precision != "float32":
                exact = self._cache.open(found.name, "float32") or found
            worst = max(
                self._reference.difference(found) / found.tolerance,
                self._reference.difference_on_drawn(exact) / exact.tolerance,
            )
        except Exception as error:  # whatever the runtimes raise
            self._say(f"the {found.name} export is damaged and is made anew: {_line(error)}")
            return False
        if not worst <= 1.0:
            self._say(f"the {found.name} export acts otherwise than the policy and is made anew")
        return worst <= 1.0

    def _require_equal(self, backend: Backend) -> None:
        difference = self._reference.difference(backend)
        if not difference <= backend.tolerance:
            raise CheckpointError(
                f"the actions of checkpoint {self._checkpoint.label} with {backend.name} in"
                f" {backend.precision} differ from the policy's by {difference:.2g} of their scale,"
                f" at most {TOLERANCES[backend.precision]:g} is accepted; use --backend=torch"
                " --precision=float32"
            )


def _race(sides: Mapping[str, Backend], batch: Batch) -> dict[str, float]:
    """Return the best latency per backend, interleaved so that other load affects all equally."""
    slowest = 0.0
    for side in sides.values():
        side.predict_chunk(batch)
        began = time.perf_counter()
        side.predict_chunk(batch)
        slowest = max(slowest, time.perf_counter() - began)
    least, most = ROUNDS
    rounds = min(most, max(least, int(MEASURED_S / slowest / len(sides))))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side.predict_chunk(batch)
            seconds[name].append(time.perf_counter() - began)
    return {name: min(each) for name, each in seconds.items()}


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
