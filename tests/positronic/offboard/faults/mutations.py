"""Frames that no honest client sends, made from real ones by a seeded generator."""

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from PIL import Image

from positronic.offboard import wire

DTYPES = ["|O", "|V8", "<c16", "<f3", "<U9", "|S5", "<M8[ns]", "f4,f4", "(2,2)f4", "f4,(", "", "é"]
DTYPES += ["|b1", ">f8", "|i1", "<u8", "<U2147483647", "O" * 99, "<f2"]
SHAPES: list[Any] = [[], [-1], [2**62], [0, 2**62], [2**32, 2**32], [1.5], [None], [True], "22"]
SHAPES += [None, [[2]], [1] * 40, [0] * 65, {"a": 1}, [2**64 - 1], [4, 4, 3], [2, 4]]
REQUEST_IDS: list[Any] = [
    None,
    -1,
    0,
    2**63,
    2**64 - 1,
    float("nan"),
    True,
    "1",
    b"1",
    [1],
    {"a": 1},
]
REQUEST_IDS += ["x" * 5000, 1.5, -(2**63)]
# The first bytes of msgpack's containers and strings, which a length of 32 bits follows.
LONG = (0xDD, 0xDF, 0xDB, 0xC6, 0xC9)


def jpeg(height: int = 6, width: int = 8) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = jpeg()


def resized_header(height: int, width: int) -> bytes:
    """A JPEG of 6x8 that claims to be larger: the size stands behind the start of frame."""
    data = bytearray(JPEG)
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


# What a robot sends, with small images so that most mutations meet what is around them.
OBSERVATION: dict[str, Any] = {
    "robot_state.q": np.linspace(0, 1, 7, dtype=np.float32),
    "robot_state.ee_pose": np.array([0.4, 0.1, 0.3, 0.5, 0.5, 0.5, 0.5]),
    "grip": 0.5,
    "gain": np.float32(0.25),
    "image.wrist": np.zeros((6, 8, 3), np.uint8),
    "task": "stack the red cube",
}


def marker(frames: Any, ndim: Any = 3) -> dict[bytes, Any]:
    return {b"__jpeg__": True, b"frames": frames, b"ndim": ndim}


def real_frames(obs: dict[str, Any]) -> list[bytes]:
    """Frames of honest clients: public ones, and ours with and without JPEG."""
    compressed = {**obs, "image.wrist": marker([JPEG]), "image.side": marker([JPEG, JPEG], 4)}
    return [
        wire.pack(obs),
        wire.pack({"request_id": 7, "observation": obs}),
        wire.pack(compressed),
        wire.pack({"request_id": 8, "observation": compressed}),
        wire.pack({"grip": 0.5}),
    ]


@dataclass(frozen=True)
class Honest:
    """What mutations begin with."""

    obs: dict[str, Any]
    frames: list[bytes]


def _flip(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    for _ in range(rng.randrange(1, 5)):
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    return bytes(frame)


def _overwrite(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame)


def _truncate(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    return bytes(frame[: rng.randrange(len(frame))])


def _splice(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    other = rng.choice(honest.frames)
    return bytes(frame[: rng.randrange(len(frame))]) + other[rng.randrange(len(other)) :]


def _repeat(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    start, end = sorted(rng.randrange(len(frame)) for _ in range(2))
    return bytes(frame[:end] + frame[start:])


def _noise(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    return rng.randbytes(rng.randrange(200))


def _long(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    """Declare up to four billion elements."""
    at = rng.randrange(len(frame))
    count = rng.choice([2**32 - 1, 2**31, 2**24, 70000])
    frame[at : at + 1] = bytes([rng.choice(LONG)]) + count.to_bytes(4, "big")
    return bytes(frame)


def _deep(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    depth = rng.choice([100, 500, 1000, 5000, 20000])
    shell = rng.choice([b"\x91", b"\x81\xa1a", b"\x81\xc4\x0b__ndarray__"])
    return shell * depth + rng.choice([b"\xc0", b"", bytes(frame)])


def _typed(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    """Well-formed maps in which one value is of a wrong type, or no map at all."""
    strange: list[Any] = [None, True, -1, 2**63, float("nan"), float("inf"), "x" * 3000, b"\0" * 9]
    strange += [[], [1, "a"], {}, {"grip": 0}, msgpack.ExtType(5, b"xyz"), msgpack.Timestamp(1, 2)]
    strange += [1e308, -0.0, "\ud7ff", {1: 2}, {b"a": 1}, [[[[]]]], np.zeros((0, 3)), np.array("a")]
    value = rng.choice(strange)
    obs: Any = dict(honest.obs)
    obs[rng.choice([*obs, "image.side", "", 5, b"grip", None, "é" * 200])] = value
    return wire.pack(rng.choice([obs, {"request_id": 3, "observation": obs}, value]))


def _array(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    """Arrays and scalars whose dtype, shape and data do not fit each other."""
    dtype = rng.choice([*DTYPES, None, 5])
    data = rng.choice([b"", b"\0" * 8, b"\0" * 96, "text", None, 2**40, -5, 1.5, [1], True])
    if rng.random() < 0.3:
        value: dict[bytes, Any] = {b"__npgeneric__": True, b"data": data, b"dtype": dtype}
    else:
        shape = rng.choice(SHAPES)
        value = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}
    if rng.random() < 0.2:
        del value[rng.choice([b"data", b"dtype"])]
    key = rng.choice(["robot_state.q", "grip", "image.wrist", "gain"])
    packed: bytes = msgpack.packb({**msgpack.unpackb(wire.pack(honest.obs)), key: value})
    return packed


def _jpeg(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    """Images that are none, are damaged, or claim to be of a gigapixel."""
    damaged = bytearray(JPEG)
    for _ in range(rng.randrange(1, 9)):
        damaged[rng.randrange(2, len(damaged))] = rng.randrange(256)
    choices: list[Any] = [bytes(damaged), JPEG[: rng.randrange(len(JPEG))], rng.randbytes(50), b""]
    choices += [resized_header(65500, 65500), resized_header(9000, 9000), resized_header(1, 65500)]
    choices += [b"\x89PNG\r\n\x1a\n" + bytes(50), b"GIF89a" + bytes(50), "text", None, 5, [JPEG]]
    image = rng.choice(choices)
    frames_value = rng.choice([[image], [JPEG, image], [], image, [JPEG] * 300, {"a": image}])
    ndim = rng.choice([3, 3, 3, 4, 4, 0, -1, 2**40, None, "3", True, 3.0])
    value = marker(frames_value, ndim)
    if rng.random() < 0.1:
        del value[rng.choice([b"frames", b"ndim"])]
    return wire.pack({**honest.obs, "image.wrist": value})


def _envelope(rng: random.Random, frame: bytearray, honest: Honest) -> bytes:
    """Requests with ids that are no numbers, and observations that are no maps."""
    obs: Any = rng.choice([honest.obs, {}, None, [], 5, "x", {"request_id": 1}, {1: 2}])
    extra = {"more": 1} if rng.random() < 0.2 else {}
    return wire.pack({"request_id": rng.choice(REQUEST_IDS), "observation": obs, **extra})


MUTATORS: list[Callable[[random.Random, bytearray, Honest], bytes]] = [
    _flip,
    _overwrite,
    _truncate,
    _splice,
    _repeat,
    _noise,
    _long,
    _deep,
    _typed,
    _array,
    _jpeg,
    _envelope,
]


def mutations(seed: int, count: int, obs: dict[str, Any] | None = None) -> Iterator[bytes]:
    """Yield ``count`` frames, made of the observation ``obs``; the same for the same seed."""
    rng = random.Random(seed)
    obs = OBSERVATION if obs is None else obs
    honest = Honest(obs, real_frames(obs))
    for _ in range(count):
        mutate = rng.choice(MUTATORS)
        yield mutate(rng, bytearray(rng.choice(honest.frames)), honest)
