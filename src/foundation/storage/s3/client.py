"""S3 client (boto3), one for each profile and environment."""

import os
import threading
from typing import Any

from foundation.errors import StorageError
from foundation.storage.s3.profiles import Profile, load_profile

CONNECT_TIMEOUT_S = 5.0
# Of silence, not of the whole transfer.
READ_TIMEOUT_S = 10.0
# Files that are moved at once.
PARALLEL = 8

_clients: dict[Profile, Any] = {}
_circumstances: Any = None  # in which they were made
_lock = threading.Lock()


def client(profile: str | None) -> Any:
    """Return boto3's S3 client for a profile; None is the environment's.

    Raises:
        StorageError: there is no such profile, or the package for S3 is not installed.
    """
    global _circumstances
    settings = load_profile(profile)
    # After a fork, or once the environment has changed, connections must not be shared.
    usual = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    circumstances = (os.getpid(), usual)
    with _lock:
        if circumstances != _circumstances:
            _circumstances = circumstances
            _clients.clear()  # each takes 10 MB and more
        if settings not in _clients:
            _clients[settings] = _make(settings)
        return _clients[settings]


def endpoint(profile: str | None) -> str:
    """The address of the service: a bucket's name means another bucket at another one."""
    return str(client(profile).meta.endpoint_url)


def _make(settings: Profile) -> Any:
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise StorageError(
            "S3 needs the package boto3; pip install 'positronic-lightning[s3]'"
        ) from error
    # Patience is ours: botocore's own would multiply with it.
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 1},
        max_pool_connections=2 * PARALLEL,
        signature_version=UNSIGNED if settings.anonymous else None,
    )
    try:
        session = boto3.Session(profile_name=settings.aws_profile, region_name=settings.region)
        return session.client("s3", endpoint_url=settings.endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"S3 cannot be reached as configured: {error}") from error
