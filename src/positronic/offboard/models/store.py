"""Model store: each model loaded once, shared by all its sessions, within a memory bound.

Only models that no session uses are evicted, least recently used first. The default is never
evicted, so that a session that names no checkpoint never waits.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from foundation.errors import UsageError
from positronic.errors import Busy, CheckpointError
from positronic.offboard.models.batching import STOPPING, Batcher, Batching
from positronic.offboard.models.model import Model, UnfitModel

logger = logging.getLogger(__name__)
__all__ = ["Lease", "ModelSource", "ModelStatus", "ModelStore"]
_BATCHING = Batching()


@dataclass(frozen=True)
class ModelStatus:
    """Status of one model, for operators."""

    id: str
    state: Literal["loading", "ready"]
    nbytes: int
    """Bytes of memory that it holds; an estimate while it loads."""
    sessions: int
    """Sessions that use it or wait for it."""
    last_used: float
    """When a session last began or ended, on the clock of ``time.monotonic``."""
    waiting: int
    """Requests in its queue."""
    meta: Mapping[str, Any]
    """The model's meta; empty while it loads."""


@dataclass(eq=False)
class Entry:
    """One model in the store, loaded or loading."""

    id: str
    began: float = field(default_factory=time.monotonic)
    last_used: float = field(default_factory=time.monotonic)
    nbytes: int = 0
    sessions: int = 0
    said: str = ""
    """The last progress message of its load."""
    load: "asyncio.Task[None] | None" = None
    """None once it has ended."""
    batcher: Batcher | None = None
    """None until it is loaded."""

    @property
    def ready(self) -> bool:
        """Whether it is loaded."""
        return self.batcher is not None

    def enter(self) -> None:
        """Count a session that begins."""
        self.sessions += 1
        self.last_used = time.monotonic()

    def leave(self) -> None:
        """Count a session that ends."""
        self.sessions -= 1
        self.last_used = time.monotonic()

    def status(self) -> ModelStatus:
        """Return its present status."""
        return ModelStatus(
            id=self.id,
            state="ready" if self.batcher else "loading",
            nbytes=self.nbytes,
            sessions=self.sessions,
            last_used=self.last_used,
            waiting=self.batcher.waiting if self.batcher else 0,
            meta=self.batcher.model.meta if self.batcher else {},
        )


class Lease:
    """A session's use of a model, which is not evicted before the release."""

    def __init__(self, entry: Entry) -> None:
        """Take over the session count of an ``entry`` that is ready and was entered."""
        assert entry.batcher is not None
        self.batcher: Batcher = entry.batcher
        self.model: Model = entry.batcher.model
        self._entry: Entry | None = entry

    def release(self) -> None:
        """Release the model; further calls do nothing."""
        if self._entry is not None:
            self._entry.leave()
            self._entry = None


class ModelSource(Protocol):
    """Source of models. The methods block; they are called in threads."""

    def ids(self) -> list[str]:
        """List the ids that exist now, oldest first."""

    def resolve(self, requested: str) -> str:
        """Return the id for a requested name; CheckpointError lists the existing ones."""

    def nbytes(self, model_id: str) -> int:
        """Estimate how many bytes a model will hold, before it is loaded.

        FoundationError if it no longer exists: nothing is evicted for it.
        """

    def load(self, model_id: str, say: Callable[[str], None]) -> Model:
        """Load one and warm it up; FoundationError says why it cannot be used.

        The last message given to ``say`` is shown to waiting clients.
        """


class ModelStore:
    """The models of one server; used in the event loop's thread.

    One thread loads, since concurrent loads would slow each other down, and one predicts.
    """

    def __init__(
        self,
        source: ModelSource,
        default: str,
        *,
        memory_bytes: int,
        batching: Batching = _BATCHING,
        older: Sequence[str] = (),
    ) -> None:
        """Configure the store; nothing is loaded yet.

        Args:
            source: The source of the models.
            default: Id of the model that sessions without a wish get.
            memory_bytes: Maximum memory of all models together.
            batching: How requests for one model are batched.
            older: Ids that `acquire_default` may take instead, newest first.
        """
        if memory_bytes <= 0:
            raise UsageError(f"{memory_bytes} bytes of memory for models; expected more than none")
        self.source, self.memory_bytes, self._batching = source, memory_bytes, batching
        self._default, self._older = default, list(older)
        self._entries: dict[str, Entry] = {}
        # Measured sizes, used instead of estimates once known.
        self._sizes: dict[str, int] = {}
        self._turn = asyncio.Lock()
        self._current: Entry | None = None
        self._loader = ThreadPoolExecutor(1, "load")
        self._inference = ThreadPoolExecutor(1, "inference")
        self._closed = False

    @property
    def default(self) -> str:
        """Id of the model that sessions without a wish get."""
        return self._default

    @property
    def loading(self) -> str | None:
        """Id of the model that is being loaded; None if none is."""
        return self._current.id if self._current else None

    def ready(self, model_id: str) -> bool:
        """Whether `acquire` would return at once."""
        entry = self._entries.get(model_id)
        return entry is not None and entry.ready

    def progress(self, model_id: str) -> tuple[Literal["loading", "waiting"], str]:
        """Return a status and a message for clients that wait for a model."""
        entry = self._entries.get(model_id)
        seconds = time.monotonic() - entry.began if entry else 0.0
        if self._current not in (None, entry):
            words = f"Waiting for checkpoint {self.loading} to finish loading..."
            return "waiting", f"{words} ({seconds:.0f} s)"
        words = (entry.said if entry else "") or f"Loading checkpoint {model_id}..."
        return "loading", f"{words} ({seconds:.0f} s)"

    def status(self) -> list[ModelStatus]:
        """List the models loaded or loading, in the order in which they were requested."""
        return [entry.status() for entry in self._entries.values()]

    def promote(self, model_id: str) -> None:
        """Make a loaded model the default; the old one may be evicted once it is idle.

        Raises:
            CheckpointError: It is not loaded.
        """
        if not self.ready(model_id):
            raise CheckpointError(
                f"checkpoint {model_id} is not loaded; only one that is can be the default"
            )
        self._default = model_id

    async def acquire(self, model_id: str) -> Lease:
        """Lease the model for a session, loading it if necessary.

        Concurrent requests for one model share its load. A failed load is retried at the next call.

        Raises:
            Busy: It does not fit beside the models in use, or the server stops.
            CheckpointError: It exceeds the memory bound.
            Exception: What ``ModelSource.load`` raises.
        """
        if self._closed:
            raise Busy(STOPPING)
        entry = self._entries.get(model_id)
        if entry is None:
            entry = self._entries[model_id] = Entry(model_id)
            entry.load = asyncio.create_task(self._load(entry))
            # Retrieve the exception, in case nobody awaits the task any more.
            entry.load.add_done_callback(lambda load: load.cancelled() or load.exception())
        entry.enter()
        try:
            if entry.load is not None:
                # Shielded: a client that gives up must not end the load that others wait for.
                await asyncio.shield(entry.load)
            return Lease(entry)
        except BaseException:
            entry.leave()
            raise

    async def acquire_default(self) -> Lease:
        """Lease the default model; if it is unfit, the newest fit older one becomes the default.

        Raises:
            CheckpointError: None is fit.
            Exception: As `acquire`.
        """
        while True:
            try:
                return await self.acquire(self._default)
            except UnfitModel as error:
                if not self._older:
                    raise
                logger.warning("passed over: %s", error)
                self._default = self._older.pop(0)

    def close(self) -> None:
        """Stop loading and predicting; models are closed after the running batch."""
        if self._closed:
            return
        self._closed = True
        self._loader.shutdown(wait=False, cancel_futures=True)
        for entry in self._entries.values():
            if entry.batcher:
                entry.batcher.close()
                self._inference.submit(_give_back, entry.id, entry.batcher.model)
        self._inference.shutdown(wait=False)

    async def _load(self, entry: Entry) -> None:
        try:
            async with self._turn:
                self._require_wanted(entry)
                self._current = entry
                try:
                    await self._load_in_turn(entry)
                finally:
                    self._current = None
        except BaseException:
            del self._entries[entry.id]
            raise
        finally:
            entry.load = None

    async def _load_in_turn(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        nbytes = await loop.run_in_executor(self._loader, self.source.nbytes, entry.id)
        await self._make_room(entry, self._sizes.get(entry.id, nbytes))

        def say(sentence: str) -> None:
            entry.said = sentence

        self._require_wanted(entry)
        model = await loop.run_in_executor(self._loader, self.source.load, entry.id, say)
        try:
            self._sizes[entry.id] = model.nbytes
            await self._make_room(entry, model.nbytes)
            self._require_open()
        except BaseException:
            _give_back(entry.id, model)
            raise
        entry.batcher = Batcher(
            model, self._inference, self._batching, open_sessions=lambda: entry.sessions
        )

    def _require_open(self) -> None:
        if self._closed:
            raise Busy(STOPPING)

    def _require_wanted(self, entry: Entry) -> None:
        self._require_open()
        if not entry.sessions:
            raise Busy(f"nobody waits for checkpoint {entry.id} any more")

    async def _make_room(self, entry: Entry, nbytes: int) -> None:
        """Evict idle models until ``entry`` may hold ``nbytes``; none if that does not suffice."""
        others = [other for other in self._entries.values() if other is not entry]
        excess = sum(other.nbytes for other in others) + nbytes - self.memory_bytes
        idle = [other for other in others if other.ready and not other.sessions]
        evicted = []
        for other in sorted(idle, key=lambda other: other.last_used):
            if excess > 0 and other.id != self._default:
                evicted.append(other)
                excess -= other.nbytes
        if excess > 0:
            self._refuse(entry, nbytes)
        entry.nbytes = nbytes
        for other in evicted:
            del self._entries[other.id]
        for other in evicted:
            await self._evict(other)

    def _refuse(self, entry: Entry, nbytes: int) -> None:
        size, bound = _size(nbytes), _size(self.memory_bytes)
        default = self._entries.get(self._default)
        stays = default.nbytes if default is not None and default is not entry else 0
        if nbytes + stays > self.memory_bytes:
            beside = f" beside the default's {_size(stays)}" if stays else ""
            raise CheckpointError(
                f"checkpoint {entry.id} takes {size}{beside}, more than the {bound} that models"
                " may take on this server; start it with a larger --model_memory_gb"
            )
        used = [other.id for other in self._entries.values() if other.ready and other.sessions]
        raise Busy(
            f"checkpoint {entry.id} takes {size} and does not fit: of the {bound} that models may"
            f" take, sessions use {', '.join(used)}; try again when one has ended, or ask for one"
            " of these"
        )

    async def _evict(self, entry: Entry) -> None:
        batcher, entry.batcher = entry.batcher, None
        assert batcher is not None
        logger.info("checkpoint %s is forgotten, which nobody uses", entry.id)
        # Queued behind a batch that may still run for a client that has left.
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._inference, _give_back, entry.id, batcher.model)


def _give_back(model_id: str, model: Model) -> None:
    try:
        model.close()
    except Exception:
        logger.exception("checkpoint %s cannot be given back in order", model_id)


def _size(nbytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.4g} GB"
