"""Checkpoints of a training run: their ids, and where each lies: locally, in S3 or on the Hub.

In S3, steps are listed, and only ``pretrained_model/`` of the chosen one is fetched. A repository
on the Hub is such a folder itself: one checkpoint, named by its commit.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from foundation import storage
from foundation.text import printable
from getiaction.policies.safety import CONFIG, is_policy_file
from positronic.cli.kinds import RUN, found_instead
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.serving.checkpoints import MODEL, Checkpoint

# LeRobot's link to the newest step.
LAST = "last"


class CheckpointDirectory:
    """The checkpoints of one training run."""

    def __init__(self, path: str | Path, *, trust_checkpoint: bool = False) -> None:
        """List the checkpoints in ``path``.

        Args:
            path: The run's directory or the ``checkpoints`` folder in it; or one checkpoint, or the
                ``pretrained_model`` in it, which is then the only one; or a policy on the Hub.
            trust_checkpoint: Let them load models and code that they name, see
                `getiaction.policies.safety`.

        Raises:
            CheckpointError: There is no such directory, or no checkpoint in it.
            StorageError: It is in S3 or on the Hub and cannot be listed.
        """
        self._trusted = trust_checkpoint
        self._whole: set[str] = set()
        # One commit, whatever is pushed meanwhile.
        path = storage.pinned(path)
        given = (
            storage.join(path) if storage.is_remote(path) else str(storage.local(path).resolve())
        )
        names = storage.children(given)
        self._only: str | None = None  # the id of the only one
        self._on_hub = storage.is_hub(given) and CONFIG in names
        if self._on_hub:
            self.root, self._only = given, storage.version(given)[:12]
            self.name = given.removeprefix("hf://").partition("@")[0]
            return
        if not names:
            self._refuse_empty(path, given)
        above, _, name = given.rpartition("/")
        step = above if name == MODEL and CONFIG in names else given if MODEL in names else None
        if step is not None:
            self.root, _, self._only = step.rpartition("/")
        else:
            nested = storage.join(given, "checkpoints")
            self.root = nested if "checkpoints" in names else given
        parts = self.root.rsplit("/", 2)
        self.name = parts[-2] if parts[-1] == "checkpoints" else parts[-1]
        if not self.ids():
            self._refuse_empty(path, given)

    def _refuse_empty(self, path: str | Path, given: str) -> None:
        if not storage.exists(given):
            raise CheckpointError(
                f"{path} is not a directory; --checkpoints_dir is the directory of a training run,"
                f" <output_dir>/<run_name>{found_instead(str(path), RUN)}"
            )
        raise CheckpointError(
            f"No checkpoints found in {path}; expected checkpoints/<step>/pretrained_model/"
            " there, as training writes it every --save_freq steps"
            f"{found_instead(str(path), RUN)}"
        )

    def ids(self) -> list[str]:
        """List the steps as their directories are named, sorted by number.

        Checkpoints still being published to S3 are left out.
        """
        if self._only is not None:
            return [self._only]
        names = [name for name in storage.children(self.root) if _is_step(name)]
        # A complete step stays complete, so each is checked once.
        new = [name for name in names if name not in self._whole]
        with ThreadPoolExecutor(8) as pool:
            self._whole |= {
                name
                for name, whole in zip(new, pool.map(self._is_whole, new), strict=True)
                if whole
            }
        return sorted((name for name in names if name in self._whole), key=int)

    def _is_whole(self, name: str) -> bool:
        step = storage.join(self.root, name)
        return storage.is_whole(step) and bool(storage.children(step))

    def resolve(self, requested: str | int | None = None) -> str:
        """Return the id for ``requested``: ``10000`` is ``010000``, and None the newest.

        Raises:
            CheckpointError: There is none; the message lists the existing ones.
        """
        available = self.ids()
        if not available:
            raise CheckpointError(f"No checkpoints found in {self.name}")
        if requested is None:
            return available[-1]
        name = str(requested).strip("/")
        if name in available:
            return name
        if name == LAST:
            return available[-1]
        for candidate in available if _is_step(name) else []:
            if candidate.lstrip("0") == name.lstrip("0"):
                return candidate
        asked = printable(name, 80)
        raise CheckpointError(f"Checkpoint not found: {asked}. Available: {available}")

    def older(self, checkpoint_id: str) -> list[str]:
        """List the ids older than this one, newest first."""
        ids = self.ids()
        return ids[: ids.index(checkpoint_id)][::-1]

    def folder(self, checkpoint_id: str) -> str:
        """Return the path of the policy's files of the checkpoint with this id."""
        return self.root if self._on_hub else storage.join(self.root, checkpoint_id, MODEL)

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """Return the checkpoint with this id (as from `resolve`), fetched if it is elsewhere.

        Raises:
            StorageError: It is in S3 or on the Hub and cannot be fetched.
        """
        if self._on_hub:
            path = storage.fetch(self.root, only=is_policy_file)
            return Checkpoint(path, checkpoint_id, self.name, self._trusted, on_hub=True)
        step = storage.join(self.root, checkpoint_id)
        path = storage.fetch(step, only=lambda name: name.startswith(f"{MODEL}/")) / MODEL
        return Checkpoint(path, checkpoint_id, self.name, self._trusted)


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit()
