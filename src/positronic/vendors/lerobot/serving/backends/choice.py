"""Backend choice of ``auto``, stored beside the exports, so that each machine measures once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from foundation.documents import Document, InvalidDocument, Reader, plain
from foundation.files import replace_text

_READER = Reader(size=1 << 20, depth=8, values=10_000)


class _Kept(Document):
    backend: str
    milliseconds: dict[str, Annotated[list[float], Field(max_length=10)]]
    conditions: list[Any]


@dataclass(frozen=True)
class Choice:
    """The backend that was fastest.

    Args:
        backend: Its name.
        milliseconds: By backend, what a batch of 1 and one of 8 took.
    """

    backend: str
    milliseconds: dict[str, list[float]]

    @classmethod
    def load(cls, places: Sequence[Path], conditions: Sequence[Any]) -> Self | None:
        """Read what was chosen under the same conditions; None if nothing was."""
        for place in places:
            try:
                kept = _READER.load_json(place / _name(conditions), _Kept)
            except (OSError, InvalidDocument):
                continue
            if kept.conditions == plain(list(conditions)):
                return cls(kept.backend, kept.milliseconds)
        return None

    def save(self, places: Sequence[Path], conditions: Sequence[Any]) -> None:
        """Write it to the first of ``places`` that can be written; else it is measured again."""
        document = {**asdict(self), "conditions": list(conditions)}
        for place in places:
            file = place / _name(conditions)
            try:
                place.mkdir(parents=True, exist_ok=True)
                replace_text(file, json.dumps(document, indent=2) + "\n")
                return
            except OSError:
                continue


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _name(conditions: Sequence[Any]) -> str:
    digest = hashlib.sha256(json.dumps(list(conditions)).encode()).hexdigest()
    return f"choice-{digest[:12]}.json"
