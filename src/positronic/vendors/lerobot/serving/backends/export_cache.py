"""Export cache: exports made once per checkpoint, keyed by a digest of all their sources.

An export lies in ``<step>/exports/onnx-<digest>/``. If that cannot be written, and for a checkpoint
fetched from S3 or the Hub, whose local copy is not this program's to write to, it lies in
``positronic/exports`` below ``$XDG_CACHE_HOME``, where the most recently used few are kept.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.cache import cache_root, exclusive
from foundation.files import sha256_of
from foundation.text import printable
from getiaction.export.inference import InferenceModel
from getiaction.export.manifest import FILES, FORMAT_VERSION, Manifest
from getiaction.policies.safety import CONFIG
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.serving.backends.base import TOLERANCES
from positronic.vendors.lerobot.serving.checkpoints import WEIGHTS, Checkpoint

if TYPE_CHECKING:
    from getiaction.export.graph import Traced


KEPT = 16
# Permissions by which others could replace an export.
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# Packages whose versions affect an export. Read from metadata: importing them takes seconds.
_ALL = ("positronic-lightning", "torch", "lerobot", "onnx", "onnxscript")
MAKERS = {"onnx": _ALL, "openvino": (*_ALL, "openvino")}
TITLES = {"onnx": "ONNX", "openvino": "OpenVINO"}


class ExportedBackend:
    """Backend that runs an export; see `Backend`.

    Args:
        model: The export, loaded; its graph takes uint8 images.
        precision: Precision that it was loaded for.
        nbytes: Bytes of the graph and its weights.
    """

    def __init__(self, model: InferenceModel, precision: str, nbytes: int) -> None:
        self.name = model.manifest.backend
        self.precision, self.tolerance = precision, TOLERANCES[precision]
        self.nbytes = nbytes
        self._model = model

    def predict_chunk(self, batch: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the actions of the export; see `Backend`."""
        keys = [spec.key for spec in self._model.manifest.inputs]
        return self._model.predict_action_chunk({key: _channels_first(batch[key]) for key in keys})


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array


class ExportCache:
    """The exports of one checkpoint.

    Args:
        checkpoint: The checkpoint.
        threads: Threads of a forward pass.
        say: Called with a message before slow work.
    """

    def __init__(self, checkpoint: Checkpoint, threads: int, say: Callable[[str], None]) -> None:
        self._checkpoint, self._threads, self._say = checkpoint, threads, say
        self._told: set[str] = set()
        self.digest = _digest(checkpoint.path)
        common = cache_root() / "positronic"
        ours = common / "exports" / self.digest
        beside = checkpoint.path.parent / "exports"
        fetched = checkpoint.on_hub or checkpoint.path.is_relative_to(common)
        self.places = [ours] if fetched else [beside, ours]

    @cached_property
    def _traced(self) -> "Traced":
        # Lightning comes with it, which takes seconds to import.
        from getiaction.export.graph import Traced
        from getiaction.policies.lerobot import LeRobotPolicy

        policy = LeRobotPolicy.from_pretrained(
            self._checkpoint.path, trust_checkpoint=self._checkpoint.trusted
        )
        return Traced(policy, image_dtype="uint8")

    def open(self, backend: str, precision: str) -> ExportedBackend | None:
        """Load the export for ``backend``; None if there is none, or it is unsafe or damaged.

        One that users other than this one and root can write to is unsafe.
        """
        for place in self.places:
            if found := self._load(place, backend, precision):
                return found
        return None

    def make(self, backend: str, precision: str, *, anew: bool = False) -> ExportedBackend:
        """Export the checkpoint and load the export; of concurrent processes, one does the work.

        Args:
            backend: ``onnx`` or ``openvino``.
            precision: To load it for; the export is the same.
            anew: Export even if there is one.

        Raises:
            GetiactionError: It cannot be exported.
            CheckpointError: There is no place to write it.
        """
        refused = []
        for place in self.places:
            if place.exists() and not _is_ours(place):
                refused.append(f"{place} (which others can write to)")
                continue
            try:
                with _locked(place):
                    found = None if anew else self._load(place, backend, precision)
                    return found or self._export(place, backend, precision)
            except OSError as error:
                refused.append(f"{place} ({error.strerror})")
        raise CheckpointError(
            f"checkpoint {self._checkpoint.label} cannot be exported: nothing can be written to"
            f" {', nor to '.join(refused)}; make one of them writable, or use --backend=torch"
        )

    def _export(self, place: Path, backend: str, precision: str) -> ExportedBackend:
        from getiaction.export.exporter import write

        self._say(f"exporting {self._checkpoint.id} to {TITLES[backend]} (once per checkpoint)")
        directory = self._directory(place, backend)
        shutil.rmtree(directory, ignore_errors=True)
        write(self._traced, directory, backend, source=self._source(backend))
        for path in (directory, *directory.rglob("*")):
            path.chmod(path.stat().st_mode & ~_OTHERS)
        _evict_oldest(place)
        return self._loaded(directory, precision)

    def _load(self, place: Path, backend: str, precision: str) -> ExportedBackend | None:
        directory = self._directory(place, backend)
        if not directory.is_dir():
            return None
        if not all(map(_is_ours, (place, directory, *directory.rglob("*")))):
            self._tell(
                f"{directory} is not used: others can write to it; take their right away, or remove"
                " it"
            )
            return None
        try:
            # Ignore an export of another checkpoint or by other versions.
            if Manifest.read(directory).source != self._source(backend):
                return None
            return self._loaded(directory, precision)
        except Exception as error:  # whatever the runtimes raise
            why = next(iter(str(error).splitlines()), "") or type(error).__name__
            self._tell(f"{directory} is damaged and is made anew: {printable(why)}")
            return None

    def _tell(self, line: str) -> None:
        """Report a line once, not at each look-up."""
        if line not in self._told:
            self._told.add(line)
            self._say(line)

    def _loaded(self, directory: Path, precision: str) -> ExportedBackend:
        model = InferenceModel(directory, device="cpu", threads=self._threads, precision=precision)
        for used in (directory, directory.parent):  # the parent is what is evicted
            os.utime(used)
        files = FILES[model.manifest.backend]
        nbytes = sum((directory / name).stat().st_size for name in files)
        return ExportedBackend(model, precision, nbytes)

    def _directory(self, place: Path, backend: str) -> Path:
        return place / f"{backend}-{self._source(backend)[:12]}"

    def _source(self, backend: str) -> str:
        """Return a digest of everything that affects an export."""
        made_by = [
            self.digest,
            FORMAT_VERSION,
            *((name, version(name)) for name in MAKERS[backend]),
        ]
        return hashlib.sha256(repr(made_by).encode()).hexdigest()


def _digest(path: Path) -> str:
    names = [CONFIG, WEIGHTS, *sorted(file.name for file in path.glob("policy_*processor*"))]
    lines = "".join(f"{name} {sha256_of(path / name)}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _is_ours(path: Path) -> bool:
    """Return whether only this user and root can have written it."""
    found = path.lstat()
    return (
        found.st_uid in (os.geteuid(), 0)
        and not stat.S_ISLNK(found.st_mode)
        and not found.st_mode & _OTHERS
    )


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    if not place.exists():
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(place.stat().st_mode & ~_OTHERS)
    with exclusive(place / ".lock"):
        yield


def _evict_oldest(place: Path) -> None:
    """Evict all but the ``KEPT`` newest exports in the cache; nothing else cleans it up."""
    if not place.is_relative_to(cache_root() / "positronic"):
        return
    kept = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
