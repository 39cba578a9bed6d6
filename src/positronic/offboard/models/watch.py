"""Watch for new checkpoints of a training run, and make the newest the server's default."""

import asyncio
import logging
import time
from collections.abc import Callable

from foundation.errors import FoundationError
from positronic.errors import Busy, CheckpointError
from positronic.offboard.models.store import ModelStore

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 600.0

OnChange = Callable[[str | None, Exception | None], None]


async def watch(store: ModelStore, interval_s: float, on_change: OnChange) -> None:
    """Poll the source and make its newest model the default; never returns.

    The new one is loaded and warmed up before it takes over. A failure changes nothing.

    Args:
        store: Its default is changed.
        interval_s: Seconds between two polls.
        on_change: Called with the id of a new default and None; with the id of a model that cannot
            be loaded and the error; or with None and the error if models cannot be listed. A
            repeated failure is reported once.
    """
    watcher = Watcher(store, interval_s, on_change)
    while True:
        await watcher.look()
        await asyncio.sleep(interval_s)


class Watcher:
    """Poller of new checkpoints, with its state between polls."""

    def __init__(
        self,
        store: ModelStore,
        interval_s: float,
        on_change: OnChange,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch for ``store``; see `watch`. ``clock`` gives seconds."""
        self._store, self._interval_s = store, interval_s
        self._on_change, self._clock = on_change, clock
        self._ids: list[str] = []
        self._known: set[str] = set()
        self._failed: str | None = None
        self._failures = 0
        self._not_before = 0.0
        self._reported: dict[str | None, type[Exception]] = {}

    async def look(self) -> None:
        """List the models once, and make the newest the default if it is new."""
        try:
            ids = await asyncio.to_thread(self._store.source.ids)
            if not ids:
                raise CheckpointError("there are no checkpoints any more; those loaded stay")
        except Exception as error:
            self._report(None, error)
            return
        self._reported.pop(None, None)
        changed, self._ids = ids != self._ids, ids
        if self._is_due(ids, changed):
            await self._take_up(ids[-1])
        self._known.update(ids)

    def _is_due(self, ids: list[str], changed: bool) -> bool:
        newest, default = ids[-1], self._store.default
        # If the default was deleted, the newest one left may be older than it.
        if newest == default or (default not in ids and newest in self._known - {self._failed}):
            return False
        if changed:
            self._failures = 0
        return newest != self._failed or changed or self._clock() >= self._not_before

    async def _take_up(self, model_id: str) -> None:
        try:
            lease = await self._store.acquire(model_id)
        except Exception as error:
            self._failed = model_id
            # There may be room for it at the next poll, and trying is cheap.
            if not isinstance(error, Busy):
                pause = min(MAX_PAUSE_S, self._interval_s * 2 ** min(self._failures, 20))
                self._failures += 1
                self._not_before = self._clock() + pause
            self._report(model_id, error)
            return
        self._store.promote(model_id)
        lease.release()
        self._failed, self._failures = None, 0
        self._reported.clear()
        self._on_change(model_id, None)

    def _report(self, model_id: str | None, error: Exception) -> None:
        # By its type: the message may contain a request id, which differs each time.
        if self._reported.get(model_id) is type(error):
            return
        self._reported[model_id] = type(error)
        what = (
            f"checkpoint {model_id} cannot be taken up" if model_id else "cannot list checkpoints"
        )
        traceback = None if isinstance(error, FoundationError | OSError) else error
        logger.warning(
            "%s, %s stays the default: %s", what, self._store.default, error, exc_info=traceback
        )
        self._on_change(model_id, error)
