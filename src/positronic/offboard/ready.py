"""What a client reads of a server's documents: the ready message and the list of models.

Imported when the first of them comes: robots' programs start without it.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from getiaction.documents import Document, Reader
from getiaction.text import printable
from positronic.errors import SessionError

_reader = Reader(error=SessionError, mend="it is no server for this client", values=200_000)


class _Codec(Document):
    spec: dict[str, Any] = Field(default_factory=dict)


class ContractPart(Document):
    """What a client reads of a contract: which signals to send, and how large the images."""

    inputs: dict[str, Any] | list[str] = Field(default_factory=list)
    codec: _Codec | None = None


class ImagePart(Document):
    """The part of a codec that takes one camera's image."""

    source: str
    size: Annotated[list[Annotated[int, Field(ge=1, le=16384)]], Field(min_length=2, max_length=2)]


class _Models(Document):
    models: list[str | int]


class _Meta(Document):
    """What a client reads of a ready message; all else is handed on as it is."""

    contract: ContractPart | None = None
    checkpoint_id: Annotated[str, Field(max_length=200)] | int | None = None
    action_fps: Annotated[float, Field(strict=False, gt=0, le=1e6)] | None = None


def meta(value: Any, url: str) -> dict[str, Any]:
    """Return the ``meta`` of a ready message.

    Raises:
        SessionError: What this client reads of it is malformed.
    """
    known = {key: value[key] for key in _Meta.model_fields if key in value}
    _reader.validate(known, _Meta, f"the ready message of {url}")
    return {str(key): item for key, item in value.items()}


def contract(document: Any) -> ContractPart:
    """Return what a client reads of the ``contract`` in a ready message; public servers send none.

    Raises:
        SessionError: It is malformed.
    """
    if not isinstance(document, Mapping):
        return ContractPart()
    return _reader.validate(dict(document), ContractPart, "the server's contract")


def image_part(part: Mapping[str, Any]) -> ImagePart:
    """Return the part of a codec that takes an image.

    Raises:
        SessionError: It is malformed.
    """
    return _reader.validate(dict(part), ImagePart, "the server's contract")


def models(body: bytes, url: str) -> list[str]:
    """Return the ids in the answer to ``GET /api/v1/models``.

    Raises:
        SessionError: It is no such answer.
    """
    found = _reader.parse_json(body, _Models, f"the list of models of {url}")
    return [printable(name) for name in found.models]
