"""Seeded damage to documents: bytes flipped, values removed, doubled, retyped or nested."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e300,
    -1e-320,
    float("nan"),
    float("-inf"),
    "",
    "\x00",
    "\x1b]0;title\x07",
    "\ud800",
    "../../escape",
    "/etc/passwd",
    "a" * 5000,
    [],
    {},
    [[[[[[]]]]]],
    {"__class__": "subprocess.Popen"},
    {"class": "os.system"},
    "@os.system",
    "{episode_index:0999999999d}",
)
DEEP = ("[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000)


def mutations(document: Any, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield ``count`` damaged versions of a JSON document, the same ones for the same seed.

    Half are changed as text (they may be no JSON any more), half as values (they are JSON).
    """
    chance = random.Random(seed)
    whole = json.dumps(document).encode()
    for index in range(count):
        if index % 2:
            yield _as_text(whole, chance)
        else:
            value = json.loads(whole)
            for _ in range(chance.choice((1, 1, 1, 2, 5))):
                value = _as_value(value, chance)
            yield json.dumps(value).encode()


def text_mutations(text: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield ``count`` damaged versions of a text, such as TOML or YAML; as :func:`mutations`."""
    chance = random.Random(seed)
    for _ in range(count):
        yield _as_text(text.encode(), chance)


def _as_text(whole: bytes, chance: random.Random) -> bytes:
    text = bytearray(whole)
    for _ in range(chance.choice((1, 2, 8))):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(6):
            case 0:
                text[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del text[at : at + chance.choice((1, 4, 64))]
            case 2:
                text[at:at] = text[at : at + 32]
            case 3:
                text = text[:at]
            case 4:
                text[at:at] = chance.choice(DEEP).encode()
            case _:
                text[at:at] = chance.choice(
                    (b"NaN", b"9" * 5000, b"\xff\xfe", b"\\ud800", b'"', b"}")
                )
        if not text:
            break
    return bytes(text)


def _as_value(value: Any, chance: random.Random) -> Any:
    """Change one part, chosen by a walk from the root."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.2:
        return copy.deepcopy(chance.choice(VALUES))  # it may be changed in its turn
    key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    match chance.randrange(5):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[chance.choice(("", "extra", "../up", "\x1b[2J", "a" * 300))] = copy.deepcopy(
                value[key]
            )
        case 2 if isinstance(value, list):
            value[key:key] = [copy.deepcopy(value[key]) for _ in range(3)]
        case _:
            value[key] = _as_value(value[key], chance)
    return value
