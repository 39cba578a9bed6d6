"""Codec specs: the JSON of a codec, and the registry of the kinds of codecs and stages."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from foundation.documents import Reader
from foundation.text import printable
from positronic.codec.fields import shown
from positronic.errors import CodecError

_KINDS: dict[str, type["Described"]] = {}
READER = Reader(
    error=CodecError,
    mend="take the codec spec from the contract of its dataset or checkpoint",
    size=1 << 20,
    depth=32,
    values=100_000,
)


class Described:
    """Base of codecs and stages: frozen dataclasses that can be serialised to JSON and back."""

    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            known = _KINDS.get(cls.kind)
            # Specs would be read as another codec than the one that wrote them. A module that is
            # loaded again, such as __main__ in a worker process, defines the same class again.
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise CodecError(
                    f"{cls.__qualname__} and {known.__qualname__} are both codecs of the kind"
                    f" '{cls.kind}'; give {cls.__qualname__} another kind"
                )
            _KINDS[cls.kind] = cls

    def to_spec(self) -> dict[str, Any]:
        """The JSON from which `from_spec` creates an equal object.

        The metadata of a field added by a later version gives the value that specs without it mean
        (``absent``). A field with that value is left out, so that older specs stay unchanged.
        """
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is one
        values = {
            f.name: getattr(self, f.name)
            for f in fields
            if not ("absent" in f.metadata and f.metadata["absent"] == getattr(self, f.name))
        }
        return {"kind": self.kind} | {name: _plain(value) for name, value in values.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]  # likewise


def without_later(spec: Any) -> Any:
    """The spec without the rules of later versions, as an older version wrote it.

    Rules are fields whose metadata has ``rule``; other later fields are choices of the user.
    """
    if isinstance(spec, list):
        return [without_later(item) for item in spec]
    if not isinstance(spec, dict) or "kind" not in spec:
        return spec
    fields = dataclasses.fields(_KINDS[spec["kind"]])  # type: ignore[arg-type]  # likewise
    rules = {f.name for f in fields if f.metadata.get("rule")}
    return {name: without_later(value) for name, value in spec.items() if name not in rules}


def _later(kind: type[Described]) -> dict[str, Any]:
    """The fields added by later versions, with the values that older specs mean."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # every subclass is one
    return {f.name: f.metadata["absent"] for f in fields if "absent" in f.metadata}


def build(spec: Any) -> Any:
    """Create the codec or stage that a validated spec describes; anything else is returned as is.

    Raises:
        CodecError: its kind is unknown, or its fields are invalid.
    """
    if not isinstance(spec, Mapping):
        return spec
    fields = dict(spec)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise CodecError(
            f"unknown codec kind {shown(kind)} in a codec spec; expected one of {known}. A codec of"
            " your own is known once its module is named, as in --codec=@my_module.my_codec"
        )
    try:
        return _KINDS[kind](**(_later(_KINDS[kind]) | fields))
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(
            f"the codec spec of kind '{kind}' is invalid: {printable(error)}"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Described):
        return value.to_spec()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
