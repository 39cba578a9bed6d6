"""Client-side parser of a server's ready message and list of models.

Imported on first use, so that robots' programs start faster.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from foundation.documents import Document, Reader
from foundation.text import printable
from positronic.codec.contract import told
from positronic.errors import ContractError, SessionError

_reader = Reader(error=SessionError, mend="it is not a server for this client", values=200_000)


class _Models(Document):
    models: list[str | int]


class _Meta(Document):
    """Fields of a ready message that the client reads; all others are passed on unchecked."""

    checkpoint_id: Annotated[str, Field(max_length=200)] | int | None = None
    action_fps: Annotated[float, Field(strict=False, gt=0, le=1e6)] | None = None


class _Session(Document):
    """How a server since Positronic 0.3 wants to be spoken to; others do not say."""

    protocol_version: Literal[1, 2, 3] = 1
    session_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None


def session_id(frame: Mapping[Any, Any], url: str) -> str | None:
    """Return the id that goes with every observation; None if the server wants bare observations.

    Raises:
        SessionError: The protocol is of a version that this client does not know.
    """
    known = {key: frame[key] for key in _Session.model_fields if key in frame}
    found = _reader.validate(known, _Session, f"the ready message of {url}")
    if found.protocol_version > 1 and found.session_id is None:
        raise SessionError(f"the ready message of {url} has no session_id")
    return found.session_id if found.protocol_version > 1 else None


def meta(value: Any, url: str) -> dict[str, Any]:
    """Return the ``meta`` of a ready message.

    Raises:
        SessionError: A field that this client reads is malformed.
    """
    known = {key: value[key] for key in _Meta.model_fields if key in value}
    _reader.validate(known, _Meta, f"the ready message of {url}")
    try:
        told(value.get("contract"), f"the contract of {url}")
    except ContractError as error:
        raise SessionError(f"malformed ready message: {error}") from error
    return {str(key): item for key, item in value.items()}


def models(body: bytes, url: str) -> list[str]:
    """Return the ids in the answer to ``GET /api/v1/models``.

    Raises:
        SessionError: It is malformed.
    """
    found = _reader.parse_json(body, _Models, f"the list of models of {url}")
    return [printable(name) for name in found.models]
