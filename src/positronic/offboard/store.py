"""Loaded models: each loaded once, however many sessions ask for it at the same moment."""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from positronic.policy.base import Policy


class ModelSource(Protocol):
    """Where models come from. The methods block; they are called in threads."""

    def ids(self) -> list[str]:
        """List what there is at this moment, oldest first."""

    def resolve(self, requested: str) -> str:
        """Find the id that a client's words mean; CheckpointError lists what there is."""

    def load(self, model_id: str) -> Policy:
        """Load one and warm it up; PositronicError says why it cannot be used."""


class ModelStore:
    """Keeps the models that were asked for last.

    A model that drops out is forgotten here and lives on until the last session that uses it ends.
    """

    def __init__(self, source: ModelSource, default: str, max_loaded: int = 2) -> None:
        """Keep up to ``max_loaded`` models of ``source``; the ``default`` one always stays."""
        self.source, self.default = source, default
        self._max_loaded = max_loaded
        self._loads: OrderedDict[str, asyncio.Task[Policy]] = OrderedDict()
        # One thread: two loads at once would only slow down each other.
        self._executor = ThreadPoolExecutor(1, "load")
        self._current: str | None = None

    def ready(self, model_id: str) -> bool:
        """Whether `get` would return at once."""
        return model_id in self._loads and self._loads[model_id].done()

    @property
    def loading(self) -> str | None:
        """Which model is being loaded now."""
        return self._current

    async def get(self, model_id: str) -> Policy:
        """Return the model, loading it if need be; a load that fails is tried anew next time."""
        task = self._loads.get(model_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(model_id))
            self._loads[model_id] = task
        self._loads.move_to_end(model_id)
        # Shielded: a client that gives up must not end the load that others wait for.
        return await asyncio.shield(task)

    async def _load(self, model_id: str) -> Policy:
        loop = asyncio.get_running_loop()
        try:
            policy = await loop.run_in_executor(self._executor, self._blocking_load, model_id)
        except BaseException:
            del self._loads[model_id]
            raise
        self._evict(keep=model_id)
        return policy

    def _blocking_load(self, model_id: str) -> Policy:
        self._current = model_id
        try:
            return self.source.load(model_id)
        finally:
            self._current = None

    def _evict(self, keep: str) -> None:
        for model_id in list(self._loads):
            loaded = [name for name in self._loads if name == keep or self.ready(name)]
            if len(loaded) <= self._max_loaded:
                return
            if model_id in loaded and model_id not in (keep, self.default):
                del self._loads[model_id]

    def close(self) -> None:
        """Start no more loads."""
        self._executor.shutdown(wait=False, cancel_futures=True)
