"""Run directory of a training run on disk, and the checkpoint from which it is resumed."""

import fcntl
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from foundation import storage
from foundation.documents import InvalidDocument
from foundation.errors import StorageError
from foundation.files import open_lock
from foundation.manifest import UNFINISHED, faults, remove_unfinished
from foundation.text import printable
from getiaction.policies.finite import first_non_finite
from positronic.errors import CheckpointError

CHECKPOINTS, LAST = "checkpoints", "last"
DAMAGED = ".damaged-"
LOCK = ".lock"
# Weights, and the optimizer's moving averages of their gradients.
NUMBERS = ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors")
# Folders that training writes to; a run may have come from somebody else.
WRITTEN = (CHECKPOINTS, "tensorboard", "wandb")


class RunDirectory:
    """A run in a local directory; a context manager that releases its lock at the end.

    Attributes:
        place: Path or URI of the run, for messages.
        path: Local directory of its files; the same, unless the run is in S3.
    """

    def __init__(self, place: str, path: Path) -> None:
        self.place = place
        self.path = path
        self._held: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    @property
    def checkpoints(self) -> Path:
        """The local directory of the checkpoints."""
        return self.path / CHECKPOINTS

    def require_fresh(self) -> None:
        """Refuse a run name that is taken.

        Raises:
            StorageError: something is there.
        """
        if storage.exists(self.place):
            raise self._taken()

    def begin(self) -> None:
        """Claim the name for a new run.

        Raises:
            StorageError: another run has it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path.mkdir()
        except FileExistsError:
            raise self._taken() from None
        self._lock()

    def resume(self) -> Path | None:
        """Clean up after a killed run, and return the newest complete checkpoint.

        Returns None for a run that was stopped before its first checkpoint. Newer damaged
        checkpoints are logged and renamed.

        Raises:
            CheckpointError: there is no such run, or none of its checkpoints is complete.
            StorageError: another process is training it.
        """
        if not self.path.is_dir():
            raise self._nothing()
        self._require_own_folders()
        self._lock()
        remove_unfinished(self.checkpoints)
        found = self.newest()
        self._set_aside_after(found)
        if found is not None:
            self._point_to(found)
        return found

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint and log skipped ones; change nothing.

        Raises:
            CheckpointError: there are checkpoints, and none is complete.
        """
        wrong = []
        for name in reversed(steps_in(self.checkpoints)):
            checkpoint = self.checkpoints / name
            fault = fault_of(checkpoint)
            if fault is None:
                return checkpoint
            wrong.append(say_passed_over(checkpoint, fault))
        if wrong:
            raise CheckpointError(f"{self.place} has no whole checkpoint: {'; '.join(wrong)}")
        return None

    def saved(self, checkpoint: Path) -> None:
        """Handle a new checkpoint; nothing to do for a local run."""

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Publish the run during training; nothing to do for a local run."""
        yield

    def _require_own_folders(self) -> None:
        """Refuse a run whose folders are links, since files would be written and deleted there."""
        for name in WRITTEN:
            if (self.path / name).is_symlink():
                raise StorageError(
                    f"{self.path / name} is a symbolic link, and a run is written in its own "
                    "directory only; move what it leads to here, or give another --output_dir"
                )

    def _lock(self) -> None:
        """Lock the run against other processes, until this one ends."""
        if self._held is not None:
            return
        held = open_lock(self.path / LOCK)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            raise StorageError(f"{self.place} is being trained by another process") from None
        self._held = held

    def _set_aside_after(self, found: Path | None) -> None:
        """Rename damaged checkpoints that are newer than ``found``, to free their names."""
        newest = -1 if found is None else int(found.name)
        for name in steps_in(self.checkpoints):
            if int(name) > newest:
                set_aside(self.checkpoints / name, f"{DAMAGED}{name}")

    def _point_to(self, checkpoint: Path) -> None:
        if checkpoint.parent != self.checkpoints:
            return
        fresh = self.checkpoints / f"{UNFINISHED}{LAST}"
        fresh.symlink_to(checkpoint.name)
        os.replace(fresh, self.checkpoints / LAST)

    def _taken(self) -> StorageError:
        return StorageError(
            f"{self.place} exists already; choose another --run_name, or go on with --resume=True"
        )

    def _nothing(self) -> CheckpointError:
        return CheckpointError(
            f"there is nothing to resume: there is no run at {self.place}; begin it without "
            "--resume"
        )


def steps_in(directory: Path) -> list[str]:
    """Return the names of the step directories in it, in order."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted_steps(name for name in names if (directory / name).is_dir())


def sorted_steps(names: Iterable[str]) -> list[str]:
    """Return those of the names that are steps, in order."""
    return sorted((name for name in names if name.isascii() and name.isdigit()), key=int)


def fault_of(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint; None if it is complete and finite."""
    found = faults(checkpoint)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else _not_finite(checkpoint)


def _not_finite(checkpoint: Path) -> str | None:
    """Return which tensor holds NaN or infinities, as older versions may have saved."""
    for name in NUMBERS:
        if not (checkpoint / name).is_file():
            continue
        try:
            found = first_non_finite(checkpoint / name)
        except (InvalidDocument, OSError) as error:
            return f"{name} cannot be read ({printable(error)})"
        if found is not None:
            return f"{name} holds NaN or infinities, in {printable(found, 80)}"
    return None


def say_passed_over(checkpoint: str | Path, fault: str) -> str:
    """Log why a checkpoint is skipped; return a short reason."""
    say(f"passing over {checkpoint}: {fault}")
    return f"{str(checkpoint).rpartition('/')[2]} ({fault})"


def set_aside(path: Path, name: str) -> None:
    """Rename ``path`` to ``name``, with a number if that is taken."""
    target, count = path.with_name(name), 1
    while target.exists():
        count += 1
        target = path.with_name(f"{name}-{count}")
    path.rename(target)


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)
