import random
import tracemalloc
from collections.abc import Callable
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


def generic(dtype: str, data: Any) -> bytes:
    return wire.pack({"x": {b"__npgeneric__": True, b"data": data, b"dtype": dtype}})


@pytest.mark.parametrize(
    ("dtype", "data"),
    [("|S1", 10**9), ("<U1", [1, 2]), ("<f4", [1.0]), ("<f4", "1"), ("<M8[s]", 1), ("|b1", None)],
)
def test_a_scalar_of_another_kind_than_its_dtype_is_refused(dtype: str, data: Any) -> None:
    with pytest.raises(SessionError, match="malformed scalar"):
        wire.unpack(generic(dtype, data))


def map_of(count: int) -> bytes:
    entries = np.zeros(count, dtype=[("mark", "u1"), ("key", ">u4"), ("value", "u1")])
    entries["mark"], entries["key"] = 0xCE, np.arange(count)
    return b"\xdf" + count.to_bytes(4, "big") + entries.tobytes()


def nested(header: bytes, depth: int) -> bytes:
    return header * depth


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: nested(b"\xdd\x00\x10\x00\x00", 1000), id="lists that say they are long"
        ),
        pytest.param(
            lambda: nested(b"\xdc\x10\x00", 1000), id="nested lists that say they are long"
        ),
        pytest.param(lambda: b"\xdf\xff\xff\xff\xff" * 100, id="maps that say they are long"),
        pytest.param(lambda: map_of(10**6), id="a map of a million numbers"),
        pytest.param(lambda: b"\xdc\x01\x2c" + 300 * map_of(4000), id="maps of numbers"),
        pytest.param(lambda: b"\xc6\xff\xff\xff\xff", id="bytes that say they are long"),
        pytest.param(lambda: b"\xc9\xff\xff\xff\xff\x05", id="an extension that says it is long"),
        pytest.param(lambda: b"\x91\xd6\xff\x00\x00\x00\x00", id="a time stamp extension"),
        pytest.param(
            lambda: b"\xdc\x10\x00" + 4096 * (b"\xdc\x10\x00" + b"\x90" * 4096), id="empty lists"
        ),
        pytest.param(
            lambda: b"\xdc\x10\x00" + 4096 * (b"\xdc\x10\x00" + b"\x80" * 4096), id="empty maps"
        ),
        pytest.param(lambda: wire.pack({"x": [0.5] * 5000}), id="numbers in a list"),
        pytest.param(lambda: generic("|S1", 2**31), id="a scalar of zeros"),
    ],
)
def test_no_frame_takes_more_memory_than_a_small_multiple_of_its_size(
    make: Callable[[], bytes],
) -> None:
    frame = make()
    tracemalloc.start()
    try:
        with pytest.raises(SessionError, match="malformed"):
            wire.unpack(frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(frame) + 40 * 2**20


def test_what_is_quoted_of_a_strange_frame_is_short() -> None:
    for frame in (array_map(shape="x" * 10**5), array_map(dtype="x" * 10**5)):
        with pytest.raises(SessionError) as error:
            wire.unpack(frame)
        assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("frame", "number"),
    [
        (wire.pack({"request_id": 7, "observation": {"x": 1}}), 7),
        (wire.pack({"request_id": 2**40, "observation": {}}) + b"\xc1 damaged", 2**40),
        (wire.pack({"request_id": 7, "observation": {"x": b"\0" * 1000}})[:-500], 7),
        (wire.pack({"request_id": 7, "grip": 1}), None),
        (wire.pack({"request_id": "7", "observation": {}}), None),
        (wire.pack({"request_id": True, "observation": {}}), None),
        (wire.pack({"observation": {}, "request_id": 7}), None),
        (wire.pack({"request_id": 7}), None),
        (wire.pack([7]), None),
        (b"\x82\xc1", None),
        (b"", None),
    ],
)
def test_the_number_of_a_request_is_read_without_the_rest(frame: bytes, number: Any) -> None:
    assert wire.request_id(frame) == number
