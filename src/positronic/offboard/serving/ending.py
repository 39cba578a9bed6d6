"""The end of a server's process, whatever its threads are still doing."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

PATIENCE_S = 0.3


def run_to_the_end(server: Coroutine[Any, Any, None]) -> None:
    """Run a server; when it has ended, so does the process, with status 0 if it cannot return.

    A thread that imports torch, predicts or waits for a bucket cannot be interrupted. The end of
    the event loop, and of the interpreter, would wait for it, or crash.
    """

    async def main() -> None:
        await server
        if _still_busy():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    asyncio.run(main())


def _still_busy() -> bool:
    until = time.monotonic() + PATIENCE_S
    own = threading.current_thread()
    others = [thread for thread in threading.enumerate() if thread is not own]
    threads = [thread for thread in others if not thread.daemon]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return any(thread.is_alive() for thread in threads)
