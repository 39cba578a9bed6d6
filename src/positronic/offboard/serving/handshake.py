"""Session handshake: find the model, wait until it is loaded, describe the server."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from foundation.errors import FoundationError
from foundation.text import printable
from positronic.errors import Busy
from positronic.offboard.models.store import Lease, ModelStore
from positronic.offboard.serving.channel import (
    INTERNAL_ERROR,
    REFUSED,
    TRY_AGAIN_LATER,
    Channel,
    Reason,
)
from positronic.offboard.serving.logs import log

logger = logging.getLogger(__name__)

# Public clients give up after 30 s without a status frame.
STATUS_INTERVAL_S = 5.0
MAX_ID = 200
MAX_REFUSAL = 1000


class Refused(Exception):
    """A refused session: the error, the close code, and the reason for the metrics."""

    def __init__(self, error: str, code: int, reason: Reason) -> None:
        """Refuse with ``error``, which is sent to the client."""
        super().__init__(printable(error, MAX_REFUSAL))
        self.code, self.reason = code, reason


async def find_model(store: ModelStore, channel: Channel, requested: str | None) -> str:
    """Return the id of the requested checkpoint; listing a bucket may take a while.

    Raises:
        Refused: There is no such checkpoint.
    """
    if requested is None:
        return store.default
    if len(requested) > MAX_ID:
        raise Refused(
            f"Checkpoint not found: {printable(requested, 40)} (no id has more than {MAX_ID}"
            " characters)",
            REFUSED,
            Reason.INVALID,
        )
    finding = asyncio.create_task(asyncio.to_thread(store.source.resolve, requested))
    try:
        while not (await asyncio.wait({finding}, timeout=STATUS_INTERVAL_S))[0]:
            await channel.status("loading", "Looking for the checkpoint...")
        return finding.result()
    except FoundationError as error:
        raise Refused(str(error), REFUSED, Reason.INVALID) from error


async def lease_model(
    store: ModelStore, channel: Channel, model_id: str, on_waiting: Callable[[], None]
) -> Lease:
    """Lease the model, sending status frames while it loads.

    Args:
        store: Loads the model if necessary.
        channel: The client's connection.
        model_id: What `find_model` returned.
        on_waiting: Called before each status frame.

    Raises:
        Refused: It cannot be loaded, or there is no room for it.
    """
    loading = asyncio.create_task(store.acquire(model_id))
    try:
        while not (store.ready(model_id) or loading.done()):
            on_waiting()
            await channel.status(*store.progress(model_id))
            await asyncio.wait({loading}, timeout=STATUS_INTERVAL_S)
        await asyncio.wait({loading})
    except BaseException:
        # The client has left; its lease may just have been granted.
        loading.cancel()
        loading.add_done_callback(_give_back)
        raise
    try:
        return loading.result()
    except Busy as error:
        raise Refused(str(error), TRY_AGAIN_LATER, Reason.BUSY) from error
    except FoundationError as error:
        raise Refused(str(error), INTERNAL_ERROR, Reason.LOAD_FAILED) from error
    except Exception as error:
        log(logger, "load failed", level=logging.ERROR, exc_info=True, model=model_id)
        said = f"Checkpoint {model_id} failed to load"
        raise Refused(said, INTERNAL_ERROR, Reason.LOAD_FAILED) from error


def _give_back(loading: "asyncio.Task[Lease]") -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().release()


def server_meta(host: str, port: int) -> dict[str, Any]:
    """Describe the server, for the ready message: the ``host`` as given, and the real ``port``."""
    return {
        "host": host,
        "port": port,
        "compress_images": False,
        "positronic_version": version("positronic-lightning"),
        "request_ids": True,
        "jpeg": True,
    }


def local_stack(image_sizes: Mapping[str, Any], grip: Mapping[str, Any]) -> dict[str, Any]:
    """Return the client-side processing; public clients refuse a server without it.

    It plays chunks by their timestamps, and shrinks images to ``image_sizes`` (``[width, height]``
    by key) if the model takes any. Clients that read this, Positronic's since 0.3, count an open
    grip as 0; if by ``grip``, as in a contract, the model counts it as 1, they flip it.
    """
    stack: list[dict[str, Any]] = [{"name": "chunked_schedule"}]
    if image_sizes:
        width, height = (max(size[i] for size in image_sizes.values()) for i in (0, 1))
        stack.append({"name": "restrict_image_size", "args": {"width": width, "height": height}})
    if grip.get("open") == 1 and grip.get("closed") == 0:
        stack.append({"name": "flip_grip"})
    return {"seq": stack}
