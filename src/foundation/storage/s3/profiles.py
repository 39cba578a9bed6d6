"""S3 profiles: named endpoints with region and credentials, or without credentials.

``s3://NAME@bucket/key`` is read by the profile NAME. ``PUBLIC`` is built in; a file adds others and
changes fields of those that are there::

    # ~/.config/positronic/profiles.toml
    [lab]
    endpoint = "https://s3.lab.example"
    region = "eu-north1"
    aws_profile = "lab"  # a section of ~/.aws/credentials

    [PUBLIC]
    endpoint = "http://mirror.lab.example:9000"
"""

import os
from pathlib import Path

from foundation.documents import Document, Reader
from foundation.errors import StorageError


class Profile(Document, extra="forbid"):
    """What is not said here, the usual ``AWS_...`` variables and files say.

    Attributes:
        endpoint: The service's address, ``https://host:port``.
        region: The region's name.
        anonymous: Whether to ask without credentials.
        aws_profile: The section of AWS's own files that has the credentials.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    aws_profile: str | None = None


_READER = Reader(
    error=StorageError,
    mend="it may have sections [NAME] with endpoint, region and aws_profile, which are text, and "
    "anonymous, which is true or false",
    size=1 << 18,
    values=10_000,
)

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
    """Return the profile of that name; None is what the environment says.

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
