"""Serve trained checkpoints: ``python -m positronic.vendors.lerobot.server``."""

import contextlib
import gc
import ipaddress
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import configuronic as cfn

from foundation import storage
from foundation.console import command
from foundation.errors import UsageError
from positronic.cfg.components import CODEC
from positronic.cli import run
from positronic.codec import Codec, LeRobotFeatures
from positronic.offboard.models.batching import Batching
from positronic.offboard.models.model import Model
from positronic.offboard.serving.limits import MIB, ServerOptions, memory_limit
from positronic.offboard.serving.logs import announce, configure
from positronic.offboard.serving.process import bind, resolve, run_to_the_end
from positronic.offboard.serving.security import is_insecure, read_token, require_token
from positronic.vendors.lerobot.codecs import require_codec
from positronic.vendors.lerobot.serving.backends.base import require_options
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoint_source import CheckpointSource
from positronic.vendors.lerobot.serving.threads import choose_threads

PROG = "python -m positronic.vendors.lerobot.server"
GB = 1e9


@cfn.config()
def serve(
    checkpoints_dir: str,
    checkpoint: str | int | None = None,
    codec: Annotated[Codec | None, CODEC] = None,
    fps: float | None = None,
    port: int = 8000,
    host: str = "127.0.0.1",
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    compile: bool = False,
    max_batch: int = 16,
    batch_window_ms: float = 2.0,
    max_queue: int = 128,
    max_sessions: int = 64,
    model_memory_gb: float | None = None,
    watch: bool = False,
    watch_interval: float = 10.0,
    request_timeout: float = 60.0,
    idle_timeout: float = 3600.0,
    drain_timeout: float = 30.0,
    rate_limit: float = 200.0,
    max_message_mb: float = 16.0,
    insecure: bool = False,
    log_format: str = "text",
    docs: bool = True,
    openpi_port: int | None = None,
    trust_checkpoint: bool = False,
) -> int:
    """Serve the checkpoints of a training run over WebSocket, to many robots at once.

    http://HOST:PORT/ is a page for people; /livez, /readyz and /metrics are for machines. SIGTERM
    lets open sessions end first. Where the variable AUTH_TOKEN is set, clients have to know it.

    Example:
        positronic-server --checkpoints_dir=OUTPUT_DIR/RUN_NAME --port=8000

    Args:
        checkpoints_dir: Directory of the training run, or the checkpoints folder in it, or one
            checkpoint; local or s3://bucket/key. Or hf://USER/NAME[@REVISION], a policy on the Hub.
        checkpoint: Step that sessions get by default, such as 10000; the newest if not given.
        codec: Codec of the training; not needed, and refused if it is another one. Without it, a
            checkpoint of LeRobot's own training takes its dataset's features as they are.
        fps: Rows per second of its dataset, where neither the checkpoint nor the dataset says it.
        port: TCP port; 0 takes a free one.
        host: Address to listen on; 0.0.0.0 lets other machines connect, which takes AUTH_TOKEN.
        device: auto, cpu, cuda or another one of torch.
        backend: What predicts: torch, onnx, openvino, or auto for the fastest that is equal.
        precision: float32 or bf16.
        compile: Let torch compile the policy; on a CPU that takes minutes and gains little.
        max_batch: The most observations of concurrent sessions that are predicted together.
        batch_window_ms: How long one waits for others to join it; a session alone never waits.
        max_queue: Observations that may wait for a checkpoint; more are answered with "busy".
        max_sessions: Sessions at once; more are refused.
        model_memory_gb: The most that checkpoints in memory may take together, in GB; half of what
            this machine or container has if not given.
        watch: Take up checkpoints that training publishes meanwhile, as the new default.
        watch_interval: Seconds between two looks.
        request_timeout: Seconds after which an observation is answered with "timeout".
        idle_timeout: Seconds after which a session that asks for nothing is closed; 0: never.
        drain_timeout: Seconds that open sessions may go on after SIGTERM.
        rate_limit: Observations a second that one session may send; 0: any number.
        max_message_mb: The largest message in MiB; a larger one ends its session.
        insecure: Let other machines connect without a token, where the network keeps others out.
        log_format: text or json.
        docs: Describe the HTTP endpoints: /docs is a page for people, /openapi.json for programs.
        openpi_port: Serve openpi's clients, too, on this port; 0 takes a free one.
        trust_checkpoint: Let checkpoints load models, tokenizers and their code from the places
            that they name; policies other than act, diffusion, tdmpc and vqbet need it.
    """
    began = time.monotonic()
    # Validate everything before imports that take seconds.
    _require(
        max_sessions=(max_sessions, 1),
        max_batch=(max_batch, 1),
        max_queue=(max_queue, 1),
        batch_window_ms=(batch_window_ms, 0),
        idle_timeout=(idle_timeout, 0),
        drain_timeout=(drain_timeout, 0),
        rate_limit=(rate_limit, 0),
    )
    _require_positive(
        fps=fps,
        model_memory_gb=model_memory_gb,
        watch_interval=watch_interval,
        request_timeout=request_timeout,
        max_message_mb=max_message_mb,
    )
    if watch and checkpoint is not None:
        raise UsageError(
            f"--watch serves the newest checkpoint and --checkpoint={checkpoint} another one;"
            " choose one of the two"
        )
    if watch and storage.is_hub(checkpoints_dir):
        raise UsageError(
            f"--watch waits for checkpoints of a training run, and {checkpoints_dir} is one policy;"
            " leave --watch out"
        )
    require_options(backend, precision, compile)
    configure(log_format)
    options = ServerOptions(
        max_sessions=max_sessions,
        idle_timeout_s=idle_timeout,
        request_timeout_s=request_timeout,
        max_message_bytes=int(max_message_mb * MIB),
        rate_limit=rate_limit,
        drain_timeout_s=drain_timeout,
        token=read_token(os.environ),
        docs=docs,
    )
    insecure = insecure or is_insecure(os.environ)
    require_token(resolve(host), host, options.token, insecure)

    if codec is not None:
        require_codec(codec, "codec")
    directory = CheckpointDirectory(checkpoints_dir, trust_checkpoint=trust_checkpoint)
    default = directory.resolve(checkpoint)
    contract = directory.checkpoint(default).verify(codec, fps)
    choose_threads(contract)
    with contextlib.ExitStack() as stack:
        listener, *others = [
            stack.enter_context(_listen(host, number, options.token, insecure))
            for number in (port, openpi_port)
            if number is not None
        ]
        address = _address(host, listener)
        announce(f"loading checkpoint {default} of {directory.name} for {address}")
        for other in others:
            announce(f"openpi's clients connect to {_address(host, other)}")

        from positronic.offboard.models.store import ModelStore
        from positronic.offboard.serving.openpi import make_openpi_app
        from positronic.offboard.serving.server import serve_forever

        def on_ready(model: Model) -> None:
            gc.enable()
            meta, seconds = model.meta, time.monotonic() - began
            what = f"serving {meta['type']} {meta['checkpoint_id']} on http://{address}"
            how = f"with {meta['backend']} {meta['precision']} (ready in {seconds:.1f} s)"
            announce(f"{what} {how}")
            if meta["contract"]["codec"]["name"] == LeRobotFeatures.kind:
                announce(_as_it_is(meta["contract"], address))
            else:
                announce(f"connect: {_connect(host, listener)}")

        store = ModelStore(
            CheckpointSource(
                directory,
                codec,
                device,
                fps=fps,
                backend=backend,
                precision=precision,
                compile=compile,
            ),
            default,
            memory_bytes=int(model_memory_gb * GB if model_memory_gb else memory_limit() / 2),
            batching=Batching(max_batch, batch_window_ms / 1000, max_queue),
            older=directory.older(default) if checkpoint is None else (),
        )
        run_to_the_end(
            serve_forever(
                store,
                listener,
                host,
                on_ready,
                options=options,
                watch_interval_s=watch_interval if watch else 0.0,
                extras=[(other, make_openpi_app) for other in others],
            )
        )
    return 0


@contextlib.contextmanager
def _listen(host: str, port: int, token: str | None, insecure: bool) -> Iterator[socket.socket]:
    with contextlib.closing(bind(host, port)) as listener:
        # By the bound address, since the name may resolve to another one by now.
        require_token(listener.getsockname()[0], host, token, insecure)
        yield listener


def _address(host: str, listener: socket.socket) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _connect(host: str, listener: socket.socket) -> str:
    """Return the command that rolls out what is served, for this machine or another one."""
    address, port = listener.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        host = socket.gethostname()
    return command(
        *("positronic-inference", "sim", "--policy=.remote", f"--policy.host={host}"),
        *(f"--policy.port={port}", "--output_dir=rollouts"),
    )


def _as_it_is(contract: Mapping[str, Any], address: str) -> str:
    """Return what clients of a policy of a LeRobot dataset send and get."""
    shapes = {
        name: f"{name} {'x'.join(map(str, feature['shape']))}"
        for name, feature in contract["features"].items()
    }
    sent = ", ".join(shapes[name] for name in contract["inputs"])
    got = ", ".join(shape for name, shape in shapes.items() if name not in contract["inputs"])
    return f"connect: ws://{address}; send {sent}; get {got} at {contract['fps']:g} per second"


def _require(**flags: tuple[float | None, float]) -> None:
    """Refuse numbers below their minimum; None was not given."""
    for name, (value, least) in flags.items():
        if value is not None and not least <= value < math.inf:
            raise UsageError(f"--{name} is {value:g}; expected {least:g} or more")


def _require_positive(**flags: float | None) -> None:
    for name, value in flags.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} is {value:g}; expected more than 0")


def main() -> None:
    """Run the command line."""
    # Off until it is ready: imported objects stay, and collecting garbage among them takes some
    # tenths of a second of the start.
    gc.disable()
    run(serve, PROG)


if __name__ == "__main__":
    main()
