"""Conversion job: everything that affects its result, and the work directory to resume it.

::

    .NAME.partial/
      lock              held by the process that uses it
      job.json          inputs of the conversion; resumed only with the same ones
      episodes/000123/  encoded episodes, durable, see `stored_episode`
      assembling/       dataset in preparation; restarted after a kill
      dataset/          complete dataset, to be moved to the output
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundation.documents import Document, Reader, plain
from foundation.errors import FoundationError, StorageError
from foundation.files import lock_descriptor
from positronic.codec import Contract
from positronic.codec.contract import versions
from positronic.dataset import Dataset
from positronic.vendors.lerobot.conversion import durable, stored_episode
from positronic.vendors.lerobot.conversion.encode_episode import Recipe, source_of

# Packages whose version may change an encoded episode.
_DECISIVE = ("positronic-lightning", "lerobot", "numpy", "pillow", "av")

Job = dict[str, Any]
READER = Reader(error=StorageError, size=1 << 28, values=16_000_000)


class _Episode(Document):
    source: str
    uid: str | None
    statics: str | None = None
    static: str | None = None


class _Codec(Document):
    name: str


class _Contract(Document):
    codec: _Codec
    inputs: list[str]
    features: dict[str, dict[str, Any]]
    fps: int | float


class _Fields(Document):
    contract: _Contract
    options: dict[str, Any]
    encoder: dict[str, Any]
    episodes: list[_Episode] | str
    versions: dict[str, Any]
    base: str | None = None


def parse(content: bytes | str, source: str) -> Job:
    """Parse a job from a file's ``content``; StorageError if it is not one."""
    return validated(READER.parse_json(content, dict[str, Any], source), source)


def validated(document: dict[str, Any], source: str) -> Job:
    """Return ``document`` if it is a job; StorageError if it is not."""
    READER.validate(document, _Fields, source)
    return document


def describe(dataset: Dataset, contract: Contract, recipe: Recipe, options: dict[str, Any]) -> Job:
    """All inputs that affect the result of a conversion, as JSON."""
    dataset.prefetch(range(len(dataset)))
    installed = versions()
    job = {
        "contract": contract.to_json(),
        "options": options,
        "encoder": asdict(recipe.encoder) if recipe.encoder else {},
        "episodes": [
            identity(dataset, index) | {"static": _static_digest(dataset, index)}
            for index in range(len(dataset))
        ],
        "versions": {name: installed[name] for name in _DECISIVE if name in installed},
    }
    return dict(plain(job))


def identity(dataset: Dataset, index: int) -> dict[str, Any]:
    """Identity of an episode: source, uid, a digest of its static values.

    Uid and digest are None if it cannot be opened.
    """
    try:
        episode = dataset[index]
        statics = json.dumps(dict(episode.static), sort_keys=True, default=repr).encode()
        digest = hashlib.sha256(statics).hexdigest()[:16]
        return {"source": source_of(episode), "uid": episode.uid, "statics": digest}
    except StorageError:
        raise
    except FoundationError:
        return {"source": f"episode {index}", "uid": None, "statics": None}


def _static_digest(dataset: Dataset, index: int) -> str | None:
    """Digest of an episode's static values: an edited task changes the result."""
    try:
        static = json.dumps(dict(dataset[index].static), sort_keys=True, default=repr)
    except StorageError:
        raise
    except FoundationError:
        return None
    return hashlib.sha256(static.encode()).hexdigest()[:16]


def brief(job: Job) -> Job:
    """The job with a digest instead of its episodes, for the provenance."""
    listed = json.dumps(job["episodes"], sort_keys=True).encode()
    return job | {"episodes": hashlib.sha256(listed).hexdigest()}


def differences(then: Job, now: Job) -> list[str]:
    """Descriptions of the inputs that changed since the start: ``"fps: 15 against 10"``."""
    begun, given = Contract.from_json(then["contract"]), Contract.from_json(now["contract"])
    names = begun.codec["name"], given.codec["name"]
    if names[0] != names[1]:
        found = [f"codec: {names[0]} against {names[1]}"]
    else:
        found = [line for line in begun.differences(given) if line.startswith("codec.")]
    found += [line for line in begun.differences(given) if line.startswith("fps:")]
    for part, prefix in (("options", "--"), ("encoder", "encoder's "), ("versions", "")):
        for key in dict.fromkeys([*then[part], *now[part]]):
            a, b = then[part].get(key), now[part].get(key)
            if a != b:
                found.append(f"{prefix}{key}: {a} against {b}")
    if then.get("base") != now.get("base"):
        found.append("the dataset that it adds to")
    if isinstance(then["episodes"], str):
        then, now = then, brief(now)
    if then["episodes"] != now["episodes"]:
        found.append(_other_episodes(then["episodes"], now["episodes"]))
    return found


def _other_episodes(then: Any, now: Any) -> str:
    if isinstance(then, str):
        return "the raw episodes"
    if len(then) != len(now):
        return f"raw episodes: {len(then)} against {len(now)}"
    pairs = enumerate(zip(then, now, strict=True))
    index, (a, b) = next((index, pair) for index, pair in pairs if pair[0] != pair[1])
    if (a["source"], a["uid"]) == (b["source"], b["uid"]):
        return f"the static values of raw episode {index}, {a['source']}"
    return f"raw episode {index}: {a['source']} ({a['uid']}) against {b['source']} ({b['uid']})"


class WorkDirectory:
    """The work directory of a conversion to ``output``; to be used only within `locked`."""

    def __init__(self, directory: Path, output: str) -> None:
        self.directory = directory
        self.output = output
        self.episodes = directory / "episodes"
        self.assembling = directory / "assembling"
        self.dataset = directory / "dataset"
        self.replaced = directory / "replaced"
        self._job = directory / "job.json"
        self._lock = directory / "lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; StorageError if another process does. Deletes the directory if unused."""
        descriptor = self._locked_file()
        try:
            self._finish_swap()
        except BaseException:
            os.close(descriptor)
            raise
        try:
            yield
        finally:
            if self.begun is None or not self.worth_keeping:
                self.clear()
                shutil.rmtree(self.directory)
            os.close(descriptor)

    @property
    def is_between(self) -> bool:
        """Whether a swap was killed: the old dataset is here, and ``output`` does not exist."""
        return self.replaced.exists() and not Path(self.output).exists()

    def _finish_swap(self) -> None:
        """Move the dataset to ``output`` after a killed swap, before anything here is deleted."""
        if self.is_between:
            complete = self.dataset if self.dataset.exists() else self.replaced
            durable.rename(complete, Path(self.output))

    def _locked_file(self) -> int:
        while True:
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = lock_descriptor(self._lock)
            except FileNotFoundError:
                continue  # the other process finished and removed the directory
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(self._lock).st_ino == os.fstat(descriptor).st_ino:
                    os.truncate(descriptor, 0)
                    os.write(descriptor, str(os.getpid()).encode())
                    return descriptor
            except BlockingIOError as error:
                pid = os.read(descriptor, 20).decode() or "unknown"
                os.close(descriptor)
                raise StorageError(
                    f"another process (pid {pid}) is converting to {self.output}; wait for it,"
                    " or give another --output_dir"
                ) from error
            except FileNotFoundError:
                pass
            os.close(descriptor)

    @property
    def begun(self) -> Job | None:
        """The job that was started here, or None; StorageError if its file is damaged."""
        try:
            return parse(READER.read(self._job), str(self._job))
        except FileNotFoundError:
            return None
        except StorageError as error:
            raise StorageError(f"{error}; start over after `rm -r {self.directory}`") from error

    @property
    def done(self) -> int:
        """Number of stored episodes."""
        return len(stored_episode.done(self.episodes))

    @property
    def worth_keeping(self) -> bool:
        """Whether it has finished work that would be lost."""
        return self.done > 0 or self.dataset.exists()

    def begin(self, job: Job, *, resume: bool) -> int:
        """Start ``job``, or resume it; returns the number of episodes that are done.

        Raises:
            StorageError: there is an unfinished job, and ``resume`` is False or the job differs.
        """
        then, done = self.begun, self.done
        if then is None or not self.worth_keeping:
            if resume:
                print(f"no unfinished conversion to {self.output}; starting one", file=sys.stderr)
            self.clear()
            self.episodes.mkdir()
            durable.write_text(self._job, json.dumps(job, indent=1) + "\n")
            return 0
        afresh = f"start over after `rm -r {self.directory}`"
        if not resume:
            raise StorageError(
                f"there is an unfinished conversion to {self.output}, {done} of"
                f" {len(then['episodes'])} episodes done: continue with --resume=True, or {afresh}"
            )
        found = differences(then, job)
        if found:
            raise StorageError(
                f"the unfinished conversion to {self.output} was started with other inputs (then"
                f" against now): {'; '.join(found)}. Give the same again, or {afresh}"
            )
        stored_episode.clear_unfinished(self.episodes)
        shutil.rmtree(self.assembling, ignore_errors=True)
        return done

    def clear(self) -> None:
        """Delete all but the lock; the job first, so that a kill leaves no job without data."""
        self._job.unlink(missing_ok=True)
        for entry in list(self.directory.iterdir()):
            if entry.is_dir():
                shutil.rmtree(entry)
