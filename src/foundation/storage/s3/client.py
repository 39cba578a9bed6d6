"""S3 clients (boto3), one for each profile: endpoint, region and credentials by name."""

import os
import threading
from pathlib import Path
from typing import Any

from foundation.documents import Document, Reader
from foundation.errors import StorageError

_READER = Reader(
    error=StorageError,
    mend="it may have sections [NAME] with endpoint, region and aws_profile, which are text, and "
    "anonymous, which is true or false",
    size=1 << 18,
    values=10_000,
)
CONNECT_TIMEOUT_S = 5.0
# Without any data, not of the whole transfer.
READ_TIMEOUT_S = 10.0
# Files transferred at once.
PARALLEL = 8
_circumstances: Any = None  # environment in which _clients were made
_lock = threading.Lock()


class Profile(Document, extra="forbid"):
    """Profile of an S3 service; unset fields come from the usual ``AWS_...`` variables and files.

    Attributes:
        endpoint: The service's address, ``https://host:port``.
        region: The region's name.
        anonymous: Whether to send unsigned requests, without credentials.
        aws_profile: The section of AWS's own files that has the credentials.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    aws_profile: str | None = None


BUILT_IN = {
    "PUBLIC": Profile(
        endpoint="https://storage.eu-north1.nebius.cloud", region="eu-north1", anonymous=True
    )
}


def profiles_file() -> Path:
    """``profiles.toml`` below ``$XDG_CONFIG_HOME``, which is ``~/.config`` unless set."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "positronic" / "profiles.toml"


def load_profile(name: str | None) -> Profile:
    """Return the profile of that name; None is the environment's.

    Raises:
        StorageError: it is not known, or the file cannot be read.
    """
    if name is None:
        return Profile(anonymous=_true(os.environ.get("AWS_NO_SIGN_REQUEST", "")))
    path = profiles_file()
    sections = _sections(path)
    if name not in sections and name not in BUILT_IN:
        known = ", ".join(sorted({*sections, *BUILT_IN}))
        raise StorageError(f"there is no profile {name!r}; known are {known}; {path} adds more")
    said = sections.get(name, Profile()).model_dump(exclude_unset=True)
    return BUILT_IN.get(name, Profile()).model_copy(update=said)


def _sections(path: Path) -> dict[str, Profile]:
    try:
        return _READER.load_toml(path, dict[str, Profile])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error


def _true(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")


_clients: dict[Profile, Any] = {}


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
            _clients.clear()  # each takes 10 MB or more
        if settings not in _clients:
            _clients[settings] = _make(settings)
        return _clients[settings]


def endpoint(profile: str | None) -> str:
    """Return the service's URL: the same bucket name at another endpoint is another bucket."""
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
    # Retries are ours (retry.py): botocore's own would multiply with them.
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
