"""Client-side parser of a server's ready message and list of models.

Imported on first use, so that robots' programs start faster.
"""

from typing import Annotated, Any

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
