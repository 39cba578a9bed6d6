"""Codecs from documents: made of a spec, in an older form, or with sizes that were open."""

from collections.abc import Mapping
from typing import Any

from positronic.codec.base import Codec
from positronic.codec.fields import listed
from positronic.codec.spec import READER, build, without_later
from positronic.errors import CodecError


def from_spec(spec: Mapping[str, Any]) -> Codec:
    """Create a codec from the JSON of `Codec.to_spec`.

    Raises:
        CodecError: it is not a codec of this version.
    """
    built = build(READER.validate(spec, dict, "the codec spec"))
    if not isinstance(built, Codec):
        raise CodecError(f"'{built.kind}' is a stage; a codec must follow it")
    return built


def older_form(codec: Codec) -> Codec:
    """The codec without fields added by later versions, as an older version made it."""
    return from_spec(without_later(codec.to_spec()))


def require_sized(codec: Codec) -> None:
    """Check that the number of elements of each signal is known.

    Raises:
        CodecError: it is not; says how to give it.
    """
    if codec.unsized:
        raise CodecError(
            f"codec '{codec.name}' does not know how many numbers {listed(codec.unsized)} have:"
            " `convert` takes it from the recordings; elsewhere give it, as in --codec.n_joints=6,"
            " or NAME:6 in --codec.state"
        )


def completed(codec: Codec, spec: Any) -> Codec:
    """The codec with what is open in it taken from the spec of the same one, sized."""
    return from_spec(_filled(codec.to_spec(), spec)) if codec.unsized else codec


def _filled(ours: Any, theirs: Any) -> Any:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {name: _filled(value, theirs.get(name)) for name, value in ours.items()}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [_filled(one, other) for one, other in zip(ours, theirs, strict=True)]
    size = type(theirs) is int and ours is None
    return theirs if size else ours
