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
# Weights, and the averages that the optimizer keeps of their gradients.
NUMBERS = ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors")
# Folders that training writes to; a run may have come from somebody else.
WRITTEN = (CHECKPOINTS, "tensorboard", "wandb")


class RunDirectory:
    """A run in a local directory; as a context, it gives the directory free at the end.

    Attributes:
        place: Where people find it.
        path: Where its files are written; the same, unless the run is in S3.
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
        """The directory of the checkpoints on this machine."""
        return self.path / CHECKPOINTS

    def require_fresh(self) -> None:
        """Refuse a name that is taken.

        Raises:
            StorageError: something is there.
        """
        if storage.exists(self.place):
            raise self._taken()

    def begin(self) -> None:
        """Take the name, for a run that is new.

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
        """Clean up after a killed run, and return the newest whole checkpoint.

        None is returned for a run that was begun and stopped before its first checkpoint. Newer
        checkpoints that are not whole are named and set aside.

        Raises:
            CheckpointError: there is no such run, or not one of its checkpoints is whole.
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
        """Return the newest whole checkpoint and name those passed over; change nothing.

        Raises:
            CheckpointError: there are some, and none is whole.
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
        """Take note of a new checkpoint."""

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Keep what is outside of this machine up to date while the run is trained."""
        yield

    def _require_own_folders(self) -> None:
        """Refuse a run whose folders lie elsewhere, where they would be written to and tidied."""
        for name in WRITTEN:
            if (self.path / name).is_symlink():
                raise StorageError(
                    f"{self.path / name} is a symbolic link, and a run is written in its own "
                    "directory only; move what it leads to here, or give another --output_dir"
                )

    def _lock(self) -> None:
        """Keep other processes off, for as long as this one lives, however it ends."""
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
        """Make room for the checkpoints to come; what was in their place is kept."""
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
    """Names of the directories in it that are steps, in order."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted_steps(name for name in names if (directory / name).is_dir())


def sorted_steps(names: Iterable[str]) -> list[str]:
    """Of these names those that are steps, in order."""
    return sorted((name for name in names if name.isascii() and name.isdigit()), key=int)


def fault_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in short; None if it is whole and its numbers are finite."""
    found = faults(checkpoint)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else _not_finite(checkpoint)


def _not_finite(checkpoint: Path) -> str | None:
    """Which number of a checkpoint is NaN or infinite; those of older versions may have such."""
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
    """Print why a checkpoint is not gone on from; returns that, shorter."""
    say(f"passing over {checkpoint}: {fault}")
    return f"{str(checkpoint).rpartition('/')[2]} ({fault})"


def set_aside(path: Path, name: str) -> None:
    """Rename something that is in the way, to ``name`` or that with a number."""
    target, count = path.with_name(name), 1
    while target.exists():
        count += 1
        target = path.with_name(f"{name}-{count}")
    path.rename(target)


def say(line: str) -> None:
    """Print a line for people."""
    print(line, file=sys.stderr, flush=True)
