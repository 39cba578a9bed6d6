import random
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from positronic.errors import SessionError
from positronic.offboard import wire

# {'a': np.array([1, 2], np.float32)} as the public clients send it.
SAMPLE = (
    "81a16184c40b5f5f6e6461727261795f5fc3c40464617461c4080000803f00000040"
    "c4056474797065a33c6634c40573686170659102"
)


def test_the_encoding_is_the_public_one_byte_for_byte() -> None:
    assert wire.pack({"a": np.array([1, 2], np.float32)}).hex() == SAMPLE
    decoded = wire.unpack(bytes.fromhex(SAMPLE))
    np.testing.assert_array_equal(decoded["a"], np.array([1, 2], np.float32))
    assert decoded["a"].dtype == np.float32


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        np.linspace(0, 1, 7),
        np.zeros((0, 3)),
        np.array(3.5),
        np.array([True, False]),
        np.arange(6, dtype=np.int64).reshape(2, 3).T,
        np.array([1, 2], dtype=">f8"),
        np.array(["red", "green"]),
    ],
)
def test_arrays_come_back_as_they_went(array: np.ndarray[Any, Any]) -> None:
    back = wire.unpack(wire.pack({"x": [array]}))["x"][0]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert not back.flags.writeable


def test_scalars_mappings_and_tuples() -> None:
    message = {"f": np.float32(0.5), "n": None, "t": (1, "a"), "m": MappingProxyType({"b": b"x"})}
    back = wire.unpack(wire.pack(message))
    assert back == {"f": np.float32(0.5), "n": None, "t": [1, "a"], "m": {"b": b"x"}}
    assert isinstance(back["f"], np.float32)


@pytest.mark.parametrize("bad", [np.array([object()]), np.array([1j]), object(), {1, 2}, 2**70])
def test_what_has_no_wire_form_is_refused(bad: object) -> None:
    with pytest.raises(SessionError, match="cannot send this message"):
        wire.pack({"x": bad})


def array_map(**fields: Any) -> bytes:
    good = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]}
    return wire.pack({"a": {key.encode(): value for key, value in {**good, **fields}.items()}})


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (array_map(shape=[3]), "8 bytes where <f4 \\[3\\] takes 12"),
        (array_map(shape=[-2]), "its shape"),
        (array_map(shape="2"), "its shape"),
        (array_map(dtype="|O"), "its dtype is '|O'"),
        (array_map(dtype="nonsense"), "its dtype is 'nonsense'"),
        (array_map(dtype=None), "its dtype"),
        (array_map(data="text"), "no bytes"),
        (b"", "malformed frame"),
        (bytes.fromhex(SAMPLE)[:-5], "malformed frame"),
        (bytes.fromhex(SAMPLE) + b"\0", "malformed frame"),
        (b"\xc1", "malformed frame"),
        (b"\x81\x80\x01", "malformed frame"),
        (b"\x91" * 5000, "malformed frame"),
    ],
)
def test_malformed_frames_are_named(frame: bytes, says: str) -> None:
    with pytest.raises(SessionError, match=says):
        wire.unpack(frame)


def test_no_frame_raises_anything_else() -> None:
    rng = random.Random(0)
    sample = bytes.fromhex(SAMPLE)
    refused: list[str] = []
    for _ in range(5000):
        frame = bytearray(sample)
        for _ in range(rng.randrange(1, 4)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        try:
            wire.unpack(bytes(frame))
        except SessionError as error:
            refused.append(str(error))
    assert len(refused) > 1000
    assert not any("\n" in message for message in refused)
