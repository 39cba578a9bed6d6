"""Policies by name for the command line: ``--policy=.remote --policy.host=...``."""

from typing import Annotated, Any

import configuronic as cfn

from foundation.errors import UsageError
from positronic.cfg.components import CODEC, is_path
from positronic.cli.components import Component

__all__ = ["POLICY", "act_absolute", "remote"]

SCHEMES = ("ws://", "wss://", "http://", "https://")
SESSION = "/api/v1/session"


@cfn.config()
def placeholder() -> Any:
    """Default: UsageError asking to choose a policy."""
    raise UsageError(
        "choose a policy: --policy=.remote --policy.host=HOST --policy.port=8000 or"
        " --policy=ws://HOST:8000 for a server, --policy=DIR for a training run in this process"
    )


@cfn.config()
def remote(
    host: str = "localhost",
    port: int = 8000,
    url: str | None = None,
    checkpoint: str | int | None = None,
    token: str | None = None,
    connect_timeout: float = 5.0,
    request_timeout: float = 60.0,
    reconnect_timeout: float = 2.0,
    allow_history_loss: bool = False,
    jpeg_quality: int | None = None,
) -> Any:
    """A policy on an inference server.

    Args:
        host: Host name or IP address of the server.
        port: Its TCP port.
        url: Instead of host and port: ws://HOST:PORT, or wss://, http:// or https://.
        checkpoint: Checkpoint to use; by default the server's default checkpoint.
        token: Bearer token, if the server requires one; better set in the environment as
            AUTH_TOKEN.
        connect_timeout: Seconds to retry while nothing listens there or the server is full.
        request_timeout: Seconds to wait for the reply to one observation.
        reconnect_timeout: Seconds to try to reconnect when the connection is lost; 0: do not.
        allow_history_loss: Reconnect even if the policy depends on earlier observations, which are
            lost.
        jpeg_quality: 1 to 95 sends images as JPEG, a twentieth of the bytes; by default raw pixels.
    """
    from positronic.offboard.client import RemotePolicy

    return RemotePolicy(
        host,
        port,
        checkpoint,
        url=url,
        token=token,
        connect_timeout=connect_timeout,
        request_timeout=request_timeout,
        reconnect_timeout=reconnect_timeout,
        allow_history_loss=allow_history_loss,
        jpeg_quality=jpeg_quality,
    )


@cfn.config()
def act_absolute(
    checkpoints_dir: str,
    checkpoint: str | int | None = None,
    codec: Annotated[Any, CODEC] = None,
    fps: float | None = None,
    device: str = "auto",
    backend: str = "torch",
    precision: str = "float32",
    compile: bool = False,
    trust_checkpoint: bool = False,
) -> Any:
    """A trained checkpoint, loaded in this process, without a server.

    Args:
        checkpoints_dir: Directory of the training run, or its checkpoints directory; local or
            s3://bucket/key. Or hf://USER/NAME[@REVISION], a policy on the Hub.
        checkpoint: Step of the checkpoint; by default the newest.
        codec: Codec of the training; by default the one recorded in the checkpoint.
        fps: Rows per second of its dataset, where neither the checkpoint nor the dataset says it.
        device: auto, cpu, cuda or another torch device.
        backend: auto, torch, onnx or openvino.
        precision: float32 or bf16.
        compile: Compile the policy with torch.compile.
        trust_checkpoint: Let the checkpoint load models, tokenizers and their code from locations
            that it names; required for policies other than act, diffusion, tdmpc and vqbet.
    """
    from positronic.vendors.lerobot.serving.policy import load_policy

    return load_policy(
        checkpoints_dir,
        checkpoint,
        codec,
        fps=fps,
        trust_checkpoint=trust_checkpoint,
        device=device,
        backend=backend,
        precision=precision,
        compile=compile,
    )


def _is_policy(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("new_session", "close"))


def _policy(text: str) -> Any:
    """Return the policy on the server of a URL, or that of a directory of checkpoints."""
    from foundation import storage

    if text.startswith(SCHEMES):
        url, session, checkpoint = text.partition(SESSION)
        if session and checkpoint.strip("/"):
            return remote.override(url=url, checkpoint=checkpoint.strip("/"))
        return remote.override(url=url)
    if not is_path(text):
        return None
    if not storage.is_remote(text) and not storage.local(text).is_dir():
        raise UsageError(
            f"--policy={text}: there is no such directory; give that of a training run,"
            " OUTPUT_DIR/RUN_NAME, or one of its checkpoints"
        )
    return act_absolute.override(checkpoints_dir=text)


POLICY = Component(
    "policy",
    ("positronic.cfg.policy",),
    _is_policy,
    _policy,
    "ws://HOST:PORT, the directory of a training run",
    "remote",
    "placeholder",
    bare=False,
)
