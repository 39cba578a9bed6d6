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
from positronic.vendors.lerobot.serving.lightning_checkpoint import SUFFIX, unpack

# LeRobot's link to the newest step.
LAST = "last"


class CheckpointDirectory:
    """The checkpoints of one training run."""

    def __init__(self, path: str | Path, *, trust_checkpoint: bool = False) -> None:
        """List the checkpoints in ``path``.

        Args:
            path: The run's directory or the ``checkpoints`` folder in it; or one checkpoint (a
                step, ``last``, the ``pretrained_model`` in it, or a copy of that by another name),
                which is then the only one; or Lightning's ``.ckpt``; or a policy on the Hub.
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
        self._only: str | None = None  # the id of the only one
        self._flat = self._on_hub = False
        if given.endswith(SUFFIX) and Path(given).is_file():
            self.root = str(unpack(Path(given), MODEL, trusted=trust_checkpoint))
            self._only = self.name = Path(given).stem
            return
        given, names = _of_link(given, storage.children(given))
        above, _, name = given.rpartition("/")
        self._on_hub = storage.is_hub(given) and CONFIG in names
        self._flat = self._on_hub or (CONFIG in names and name != MODEL)
        if self._flat:
            self.root = given
            self.name = given.removeprefix("hf://").partition("@")[0] if self._on_hub else name
            self._only = storage.version(given)[:12] if self._on_hub else name
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
        return self.root if self._flat else storage.join(self.root, checkpoint_id, MODEL)

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """Return the checkpoint with this id (as from `resolve`), fetched if it is elsewhere.

        Raises:
            StorageError: It is in S3 or on the Hub and cannot be fetched.
        """
        if self._flat:
            path = storage.fetch(self.root, only=is_policy_file)
        else:
            step = storage.join(self.root, checkpoint_id)
            path = storage.fetch(step, only=lambda name: name.startswith(f"{MODEL}/")) / MODEL
        return Checkpoint(path, checkpoint_id, self.name, self._trusted, self._on_hub)


def _of_link(given: str, names: list[str]) -> tuple[str, list[str]]:
    """Return a place and the names in it: for ``last``, a link that S3 does not have, the newest.

    Args:
        given: The place, maybe a link or the ``pretrained_model`` in it.
        names: What is there.
    """
    link = given.removesuffix(f"/{MODEL}")
    run, _, name = link.rpartition("/")
    steps = [each for each in storage.children(run) if _is_step(each)] if name == LAST else []
    whole = [each for each in steps if storage.is_whole(storage.join(run, each))]
    if names or not whole:
        return given, names
    newest = storage.join(run, max(whole, key=int))
    return newest, storage.children(newest)


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit()
