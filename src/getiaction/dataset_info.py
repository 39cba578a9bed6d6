"""Metadata of an untrusted LeRobot v3 dataset, ``info.json`` and ``stats.json``, validated.

LeRobot formats paths from ``info.json`` and trusts every number in it. Here paths must stay inside
the dataset, and numbers must be in range.
"""

import string
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from foundation.documents import Document, Reader, relative_name
from foundation.text import printable

SUPPORTED_MAJOR = "v3"
# LeRobot's default templates.
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
# LeRobot pads to three digits; no file system takes names of more than 255 bytes.
WIDEST = 9
# Values of one row of a feature: those of an image of 16384 x 16384 pixels.
LARGEST = 3 << 28

Count = Annotated[int, Field(ge=0, lt=2**53)]
Index = Annotated[int, Field(ge=0, lt=2**31)]
Statistics = dict[str, NDArray[Any]]


def template(text: str) -> str:
    """Return a LeRobot template of file paths, if all its paths lie inside the dataset.

    Raises:
        ValueError: it has other fields, absurd widths, or paths outside the dataset.
    """
    for _, name, width, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if name not in ("chunk_index", "file_index", "video_key"):
            raise ValueError(
                f"expected a template with chunk_index, file_index or video_key, not {name[:40]!r}"
            )
        digits = (width or "").removesuffix("d").removeprefix("0")
        plain = digits == "" or (digits in "123456789" and len(digits) == 1)
        if conversion or not plain or (width and name == "video_key"):
            raise ValueError(
                f"expected a number of at most {WIDEST} digits for {name}, not {width[:40]!r}"
                if width
                else f"expected {name} as it is"
            )
    relative_name(text.format(chunk_index=0, file_index=0, video_key="camera"))
    return text


Template = Annotated[str, Field(max_length=1000), AfterValidator(template)]


def _of_sane_size(shape: list[int]) -> list[int]:
    size = 1
    for length in shape:
        size *= length
        if length < 0 or size > LARGEST or len(shape) > 8:
            raise ValueError(f"expected a shape of at most {LARGEST} values")
    return shape


class Feature(Document):
    """One column of the dataset, or one camera.

    Attributes:
        dtype: such as ``float32``, ``video``, ``image``, ``string``.
        shape: of one row.
        names: of its values, in any form.
        info: LeRobot's metadata of a camera.
        video_info: the same in datasets of older versions.
    """

    dtype: str = Field(max_length=64)
    shape: Annotated[list[int], AfterValidator(_of_sane_size)]
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None


class DatasetInfo(Document):
    """``meta/info.json``; missing fields have LeRobot's defaults.

    Attributes:
        codebase_version: version of the format, such as ``v3.0``.
        fps: rows per second.
        features: by name, including LeRobot's own columns.
    """

    codebase_version: str
    fps: Annotated[int | float, Field(gt=0, le=1e6)]
    features: dict[str, Feature]
    total_episodes: Count = 0
    total_frames: Count = 0
    total_tasks: Count = 0
    chunks_size: Annotated[int, Field(gt=0)] = 1000
    data_files_size_in_mb: Annotated[int | float, Field(gt=0)] = 100
    video_files_size_in_mb: Annotated[int | float, Field(gt=0)] = 200
    data_path: Template | None = None
    video_path: Template | None = None
    robot_type: str | None = None
    splits: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _cameras_have_plain_names(self) -> "DatasetInfo":
        for name, feature in self.features.items():
            if feature.dtype == "video":
                try:
                    relative_name(name)
                except ValueError as error:
                    raise ValueError(f"a camera is named {name[:80]!r}; {error}") from error
        return self

    def data_file(self, chunk: int, file: int) -> str:
        """Return the path of a table of rows, relative to the dataset."""
        path = self.data_path or DATA_PATH
        return relative_name(path.format(chunk_index=chunk, file_index=file, video_key=""))

    def video_file(self, key: str, chunk: int, file: int) -> str:
        """Return the path of a video of the camera ``key``, relative to the dataset."""
        path = self.video_path or VIDEO_PATH
        return relative_name(path.format(video_key=key, chunk_index=chunk, file_index=file))


class _Versioned(Document):
    codebase_version: str


def parse_info(content: bytes | str, source: str, reader: Reader) -> DatasetInfo:
    """Return the ``info.json`` in ``content``, read from ``source``.

    Raises:
        reader.error: it is invalid, or not of LeRobot's format v3.
    """
    version = reader.parse_json(content, _Versioned, source).codebase_version
    if not version.startswith(SUPPORTED_MAJOR + "."):
        raise reader.error(
            f"{source}: the dataset is of LeRobot's format {printable(version, 20)}, expected "
            f"{SUPPORTED_MAJOR}.0; LeRobot has a script that converts older ones"
        )
    return reader.parse_json(content, DatasetInfo, source)


def parse_statistics(content: bytes | str, source: str, reader: Reader) -> dict[str, Statistics]:
    """Return the ``stats.json`` in ``content``, read from ``source``, as float64.

    Raises:
        reader.error: it does not hold numbers by feature and statistic.
    """
    document = reader.parse_json(content, dict[str, dict[str, Any]], source)
    try:
        return as_statistics(document)
    except ValueError as error:
        raise reader.refusal(f"{source}: {error}") from error


def as_statistics(document: Mapping[str, Mapping[str, Any]]) -> dict[str, Statistics]:
    """Return statistics as float64 arrays of at least one dimension.

    Raises:
        ValueError: one of them is neither a number nor nested lists of numbers of equal length.
    """
    return {
        feature: {name: _numbers(value, f"{feature} {name}") for name, value in stats.items()}
        for feature, stats in document.items()
    }


def _numbers(value: Any, name: str) -> NDArray[np.float64]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, bool) or not isinstance(part, int | float):
            raise ValueError(f"its statistics {name[:80]!r} are not numbers")
    try:
        return np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"its statistics {name[:80]!r} are not an array of numbers") from error
