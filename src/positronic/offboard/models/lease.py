"""Leases of loaded models: which sessions use which, and the status that an operator sees."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from positronic.offboard.models.batching import Batcher
from positronic.offboard.models.model import Model


@dataclass(frozen=True)
class ModelStatus:
    """What an operator sees of one model."""

    id: str
    state: Literal["loading", "ready"]
    nbytes: int
    """Bytes that it holds; while it loads, the estimate."""
    sessions: int
    """Leases, those of sessions that wait for it included."""
    last_used: float
    """When a session last began or ended, on the clock of ``time.monotonic``."""
    waiting: int
    """Requests in its queue."""
    meta: Mapping[str, Any]
    """The model's; empty while it loads."""


@dataclass(eq=False)
class Entry:
    """One model in the store, loaded or on its way."""

    id: str
    began: float = field(default_factory=time.monotonic)
    last_used: float = field(default_factory=time.monotonic)
    nbytes: int = 0
    sessions: int = 0
    said: str = ""
    """The last sentence of its load."""
    load: "asyncio.Task[None] | None" = None
    """None once it has ended."""
    batcher: Batcher | None = None
    """None until it is loaded."""

    @property
    def ready(self) -> bool:
        """Whether it is loaded."""
        return self.batcher is not None

    def enter(self) -> None:
        """Count one session more."""
        self.sessions += 1
        self.last_used = time.monotonic()

    def leave(self) -> None:
        """Count one session less."""
        self.sessions -= 1
        self.last_used = time.monotonic()

    def status(self) -> ModelStatus:
        """Describe it as it is at this moment."""
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
    """The use of a model by one session; as long as it lasts, the model stays."""

    def __init__(self, entry: Entry) -> None:
        """Stand for a session that has entered ``entry``, which is ready."""
        assert entry.batcher is not None
        self.batcher: Batcher = entry.batcher
        self.model: Model = entry.batcher.model
        self._entry: Entry | None = entry

    def release(self) -> None:
        """End it. More calls of ``release`` do nothing."""
        if self._entry is not None:
            self._entry.leave()
            self._entry = None
