"""``meta/provenance.json``: recordings, settings and pixel counts of a converted dataset.

It is read by later conversions to the same place, by `verify` and by `info`, and may have been
written by an older version, by a newer one, or by somebody else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from foundation.documents import Document, Reader
from getiaction.dataset_info import Count
from positronic.dataset.recorded import UNNAMED
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion.stored_episode import Pixels
from positronic.vendors.lerobot.dataset.statistics import PixelCounts

NAME = "meta/provenance.json"
# A million episodes take 100 MB.
READER = Reader(error=DatasetError, size=1 << 28, values=16_000_000, allow_nan=True)
# Of recordings that were given no identity, whose source has to do.
_NO_UID = (None, "ts-0")  # and those of recordings that nobody named, by their files' sizes


class Recording(Document):
    """A recording that became an episode.

    Attributes:
        source: its path, or what else tells it from others.
        uid: its identity.
        frames: rows that it gave.
        grip_stated: whether it says how its grip counts, where the codec reads one.
        failed: whether it says that the task was not done.
    """

    source: str
    uid: str | None = None
    frames: Annotated[int, Field(ge=0, lt=2**31)]
    grip_stated: bool = True
    failed: bool = False

    @property
    def key(self) -> str:
        """What tells it from other recordings."""
        named = self.uid not in _NO_UID and not str(self.uid).startswith(UNNAMED)
        return str(self.uid) if named else self.source


class Refusal(Document):
    """A recording that was left out."""

    source: str
    reason: str


class Settings(Document):
    """How it was converted, as far as an append has to do the same."""

    vcodec: str | None = None


class Appended(Document):
    """An append to the dataset."""

    commit: str | None = None
    episodes: Count = 0
    frames: Count = 0
    refused: list[Refusal] = Field(default_factory=list)


class _Fields(Document):
    episodes: list[Recording]
    refused: list[Refusal] = Field(default_factory=list)
    options: Settings = Settings()
    appended: list[Appended] = Field(default_factory=list)
    repaired: list[dict[str, Any]] = Field(default_factory=list)
    job: dict[str, Any] | None = None
    pixel_counts: dict[str, Pixels] = Field(default_factory=dict)
    written: str | None = None
    commit: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class Provenance:
    """Where a dataset came from: a JSON document, and its fields as far as they are known.

    Args:
        document: As it is in the file; fields of newer versions are kept.
        source: What it is called in errors.

    Raises:
        DatasetError: a field is missing or of another kind.
    """

    def __init__(self, document: Mapping[str, Any], source: str = NAME) -> None:
        self._document = dict(document)
        self._fields = READER.validate(self._document, _Fields, source)

    @classmethod
    def parse(cls, content: bytes | str, source: str = NAME) -> Self:
        """The provenance in a file's ``content``; DatasetError where it is none."""
        return cls(READER.parse_json(content, dict[str, Any], source), source)

    @classmethod
    def load(cls, dataset: Path) -> Self:
        """The provenance of the dataset in a directory.

        Raises:
            OSError: it cannot be read.
            DatasetError: it is none.
        """
        return cls.parse(READER.read(dataset / NAME))

    def save(self, dataset: Path) -> None:
        """Write it into the dataset in a directory."""
        text = json.dumps(self._document, indent=2) + "\n"
        (dataset / NAME).write_text(text, encoding="utf-8")

    @property
    def episodes(self) -> list[Recording]:
        """The recordings, in the order of the episodes that they became."""
        return self._fields.episodes

    @property
    def refused(self) -> list[Refusal]:
        """The recordings that were left out."""
        return self._fields.refused

    @property
    def appended(self) -> list[Appended]:
        """What was appended later, first to last."""
        return self._fields.appended

    @property
    def vcodec(self) -> str | None:
        """The encoder of its videos."""
        return self._fields.options.vcodec

    @property
    def job(self) -> dict[str, Any] | None:
        """What decided the result of the conversion, by which another one is the same."""
        return self._fields.job

    @property
    def written(self) -> str | None:
        """When, as a date and time."""
        return self._fields.written

    @property
    def versions(self) -> dict[str, str]:
        """Packages that wrote it."""
        return self._fields.versions

    @property
    def commits(self) -> list[str]:
        """The project's when it wrote the dataset, and at each append to it."""
        found = [self._fields.commit, *(each.commit for each in self.appended)]
        return [commit for commit in found if commit]

    def pixel_counts(self, cameras: Mapping[str, int]) -> dict[str, PixelCounts]:
        """Pixel counts by camera, of those ``cameras`` whose number of pixels they account for.

        Versions that counted none, and such that changed the dataset without counting, left none
        or too few.
        """
        found = {}
        for name, pixels in cameras.items():
            counts = np.array(self._fields.pixel_counts.get(name, ()), dtype=np.int64)
            if counts.size and (counts.sum(axis=1) == pixels).all() and pixels > 0:
                found[name] = counts
        return found

    def counted(self, pixels: Mapping[str, PixelCounts]) -> Self:
        """A copy that holds these pixel counts, by camera."""
        counts = {name: each.tolist() for name, each in pixels.items()}
        return self.replace(pixel_counts=counts) if counts else self

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields of the document changed."""
        rest = {key: value for key, value in self._document.items() if key not in changes}
        return type(self)(rest | changes)

    def repaired(self, record: Mapping[str, Any]) -> Self:
        """A copy that says what was computed anew, and by whom."""
        return self.replace(repaired=[*self._fields.repaired, record])

    def with_appended(self, record: Mapping[str, Any]) -> Self:
        """A copy with the new episodes, and with who appended them and when."""
        new = record["episodes"]
        sources = {episode["source"] for episode in new}
        counts = {"episodes": len(new), "frames": sum(episode["frames"] for episode in new)}
        refused = self._document.get("refused", [])
        return self.replace(
            episodes=[*self._document["episodes"], *new],
            refused=[each for each in refused if each["source"] not in sources],
            appended=[*self._document.get("appended", []), {**record, **counts}],
        )
