"""Serve trained checkpoints: ``python -m positronic.vendors.lerobot.server``."""

import asyncio
import contextlib
import logging
import os
import sys
import time

import configuronic as cfn

from positronic.cli import run
from positronic.codec import Codec
from positronic.offboard.listen import bind
from positronic.policy.base import Policy
from positronic.vendors.lerobot.checkpoints import CheckpointDirectory

MAX_THREADS = 8


class CheckpointSource:
    """The checkpoints of one run as a source of models."""

    def __init__(self, directory: CheckpointDirectory, codec: Codec | None, device: str) -> None:
        self._directory, self._codec, self._device = directory, codec, device

    def ids(self) -> list[str]:
        """List the steps that are there at this moment."""
        return self._directory.ids()

    def resolve(self, requested: str) -> str:
        """See `CheckpointDirectory.resolve`."""
        return self._directory.resolve(requested)

    def load(self, model_id: str) -> Policy:
        """Check, load and warm one checkpoint."""
        from positronic.vendors.lerobot.policy import LeRobotPolicy

        checkpoint = self._directory.checkpoint(model_id)
        # LeRobot prints as it loads; stdout is for those who wait for the line that says ready.
        with contextlib.redirect_stdout(sys.stderr):
            policy = LeRobotPolicy(checkpoint, checkpoint.verify(self._codec), self._device)
        policy.warm_up()
        return policy


@cfn.config()
def serve(
    checkpoints_dir: str,
    checkpoint: str | int | None = None,
    codec: Codec | None = None,
    port: int = 8000,
    host: str = "127.0.0.1",
    device: str = "auto",
) -> int:
    """Serve the checkpoints of a training run over WebSocket.

    Args:
        checkpoints_dir: Directory of the training run, or the checkpoints folder in it; local or
            s3://bucket/key.
        checkpoint: Step that sessions get by default, such as 10000; the newest if not given.
        codec: Codec of the training; not needed, and refused if it is another one.
        port: TCP port; 0 takes a free one.
        host: Address to listen on; 0.0.0.0 lets other machines connect.
        device: auto, cpu, cuda or another one of torch.
    """
    began = time.monotonic()
    # All that can be refused is refused before seconds go into imports.
    directory = CheckpointDirectory(checkpoints_dir)
    default = directory.resolve(checkpoint)
    contract = directory.checkpoint(default).verify(codec)
    image_sizes = contract.make_codec().meta.get("image_sizes", {})

    listener = bind(host, port)
    _set_threads(bool(image_sizes))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("positronic").setLevel(logging.INFO)
    address = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    print(f"loading checkpoint {default} of {directory.name} for {address}", flush=True)

    from positronic.offboard.server import serve_forever
    from positronic.offboard.store import ModelStore

    def on_ready(policy: Policy) -> None:
        seconds = time.monotonic() - began
        kind = policy.meta["type"]
        print(
            f"serving {kind} {default} on http://{address} (ready in {seconds:.1f} s)", flush=True
        )

    source = CheckpointSource(directory, codec, device)
    finished = asyncio.run(serve_forever(ModelStore(source, default), listener, host, on_ready))
    if not finished:
        # Stopped while loading: the thread that imports torch cannot be interrupted, and an
        # interpreter that ends around it would wait for it or crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _set_threads(images: bool) -> None:
    """Choose how many threads a forward takes on a CPU, before torch is imported and looks.

    Without images a forward takes 1.5 ms and only loses by sharing. Threads that spin while they
    wait would take the cores from the simulator beside.
    """
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0))) if images else 1
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Run the command line."""
    run(serve, "python -m positronic.vendors.lerobot.server")


if __name__ == "__main__":
    main()
