"""``meta/provenance.json``: recordings, settings and pixel counts of a converted dataset.

It is read by later conversions to the same output, by `verify` and by `info`, and may have been
written by an older or newer version, or by another program.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from foundation.documents import Document, Reader
from getiaction.dataset_info import Count
from positronic.dataset.applied_edits import Edits
from positronic.dataset.recorded import UNNAMED
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion.stored_episode import Pixels
from positronic.vendors.lerobot.dataset.statistics import PixelCounts

NAME = "meta/provenance.json"
# A million episodes take 100 MB.
READER = Reader(error=DatasetError, size=1 << 28, values=16_000_000, allow_nan=True)
# Uids of recordings without a unique one, which are identified by source.
_NO_UID = (None, "ts-0")  # and those derived from file sizes (UNNAMED)


class Recording(Document):
    """A recording that became an episode.

    Attributes:
        source: its path, or another identifier.
        uid: its unique id.
        frames: number of its rows.
        grip_stated: whether it states its grip convention, if the codec reads a grip.
        failed: whether its ``eval.success`` is False.
    """

    source: str
    uid: str | None = None
    frames: Annotated[int, Field(ge=0, lt=2**31)]
    grip_stated: bool = True
    failed: bool = False

    @property
    def key(self) -> str:
        """Unique key among recordings."""
        named = self.uid not in _NO_UID and not str(self.uid).startswith(UNNAMED)
        return str(self.uid) if named else self.source


class Refusal(Document):
    """A recording that could not be converted."""

    source: str
    reason: str


class Settings(Document):
    """Settings of the conversion that an append has to repeat."""

    vcodec: str | None = None


class Appended(Document):
    """An append to the dataset."""

    commit: str | None = None
    episodes: Count = 0
    frames: Count = 0
    refused: list[Refusal] = Field(default_factory=list)
    edits: Edits | None = None


class _Fields(Document):
    episodes: list[Recording]
    refused: list[Refusal] = Field(default_factory=list)
    options: Settings = Settings()
    appended: list[Appended] = Field(default_factory=list)
    repaired: list[dict[str, Any]] = Field(default_factory=list)
    job: dict[str, Any] | None = None
    edits: Edits | None = None
    pixel_counts: dict[str, Pixels] = Field(default_factory=dict)
    written: str | None = None
    commit: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class Provenance:
    """Provenance of a dataset: a JSON document and its known fields.

    Args:
        document: Content of the file; fields of newer versions are kept.
        source: Its name in error messages.

    Raises:
        DatasetError: a field is missing or has another type.
    """

    def __init__(self, document: Mapping[str, Any], source: str = NAME) -> None:
        self._document = dict(document)
        self._fields = READER.validate(self._document, _Fields, source)

    @classmethod
    def parse(cls, content: bytes | str, source: str = NAME) -> Self:
        """Parse provenance from a file's ``content``; DatasetError if it is not valid."""
        return cls(READER.parse_json(content, dict[str, Any], source), source)

    @classmethod
    def load(cls, dataset: Path) -> Self:
        """The provenance of the dataset in a directory.

        Raises:
            OSError: it cannot be read.
            DatasetError: it is not valid.
        """
        return cls.parse(READER.read(dataset / NAME))

    def save(self, dataset: Path) -> None:
        """Write it to the dataset in a directory."""
        text = json.dumps(self._document, indent=2) + "\n"
        (dataset / NAME).write_text(text, encoding="utf-8")

    @property
    def episodes(self) -> list[Recording]:
        """The recordings, in the order of the episodes that they became."""
        return self._fields.episodes

    @property
    def refused(self) -> list[Refusal]:
        """The recordings that could not be converted."""
        return self._fields.refused

    @property
    def appended(self) -> list[Appended]:
        """The appends to the dataset, in order."""
        return self._fields.appended

    @property
    def edits(self) -> list[Edits]:
        """The edit logs of the recordings at the conversion and at each append, if there were."""
        found = [self._fields.edits, *(each.edits for each in self.appended)]
        return [each for each in found if each is not None]

    @property
    def vcodec(self) -> str | None:
        """The video encoder."""
        return self._fields.options.vcodec

    @property
    def job(self) -> dict[str, Any] | None:
        """The conversion's job, to compare with another one."""
        return self._fields.job

    @property
    def written(self) -> str | None:
        """Time of the conversion, ISO 8601."""
        return self._fields.written

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that wrote it."""
        return self._fields.versions

    @property
    def commits(self) -> list[str]:
        """The project's commits at the conversion and at each append."""
        found = [self._fields.commit, *(each.commit for each in self.appended)]
        return [commit for commit in found if commit]

    def pixel_counts(self, cameras: Mapping[str, int]) -> dict[str, PixelCounts]:
        """Pixel counts by camera, of those ``cameras`` whose total number of pixels matches.

        They are missing or too low if a version without pixel counts wrote or changed the dataset.
        """
        found = {}
        for name, pixels in cameras.items():
            counts = np.array(self._fields.pixel_counts.get(name, ()), dtype=np.int64)
            if counts.size and (counts.sum(axis=1) == pixels).all() and pixels > 0:
                found[name] = counts
        return found

    def counted(self, pixels: Mapping[str, PixelCounts]) -> Self:
        """A copy with these pixel counts, by camera."""
        counts = {name: each.tolist() for name, each in pixels.items()}
        return self.replace(pixel_counts=counts) if counts else self

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields of the document changed."""
        rest = {key: value for key, value in self._document.items() if key not in changes}
        return type(self)(rest | changes)

    def repaired(self, record: Mapping[str, Any]) -> Self:
        """A copy with a record of a repair."""
        return self.replace(repaired=[*self._fields.repaired, record])

    def with_appended(self, record: Mapping[str, Any]) -> Self:
        """A copy with appended episodes, and the record of the append."""
        new = record["episodes"]
        sources = {episode["source"] for episode in new}
        counts = {"episodes": len(new), "frames": sum(episode["frames"] for episode in new)}
        refused = self._document.get("refused", [])
        return self.replace(
            episodes=[*self._document["episodes"], *new],
            refused=[each for each in refused if each["source"] not in sources],
            appended=[*self._document.get("appended", []), {**record, **counts}],
        )
