"""Policies by name for the command line: ``--policy=.remote --policy.host=...``."""

from typing import Any

import configuronic as cfn

from positronic.errors import UsageError


@cfn.config()
def placeholder() -> Any:
    """No policy chosen yet."""
    raise UsageError(
        "choose a policy: --policy=.remote --policy.host=HOST --policy.port=8000 for a server, or"
        " --policy=@positronic.vendors.lerobot.policy.act_absolute --policy.checkpoints_dir=DIR"
    )


@cfn.config()
def remote(
    host: str = "localhost",
    port: int = 8000,
    checkpoint: str | int | None = None,
    token: str | None = None,
    connect_timeout: float = 5.0,
    request_timeout: float = 60.0,
) -> Any:
    """A policy on an inference server.

    Args:
        host: Name or address of the server.
        port: Its TCP port.
        checkpoint: Which checkpoint to ask for; the server's default if not given.
        token: Bearer token, where the server wants one.
        connect_timeout: Seconds to go on trying while nothing listens there.
        request_timeout: Seconds to wait for the reply to one observation.
    """
    from positronic.offboard.client import RemotePolicy

    return RemotePolicy(host, port, checkpoint, token, connect_timeout, request_timeout)
