"""Assemble a LeRobot dataset from encoded episodes, for convert and append."""

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.documents import plain
from foundation.progress import bar
from positronic.codec import Codec, Contract
from positronic.codec.base import Features
from positronic.codec.contract import versions
from positronic.dataset import Dataset
from positronic.dataset.applied_edits import Edits
from positronic.errors import DatasetError
from positronic.source import commit
from positronic.vendors.lerobot.conversion import durable, stored_episode
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode, Recipe
from positronic.vendors.lerobot.conversion.encoders import ENCODERS
from positronic.vendors.lerobot.conversion.job import WorkDirectory
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.conversion.workers import encoding
from positronic.vendors.lerobot.dataset.statistics import PixelCounts

if TYPE_CHECKING:
    from positronic.vendors.lerobot.conversion.dataset_writer import LeRobotWriter


@dataclass(frozen=True)
class Assembled:
    """Result of an assembly: records of converted episodes, source and reason of refused ones.

    ``stats`` and ``pixels`` are those of the whole dataset; ``commit`` is the project's commit at
    the start; ``began`` is when the work did, on the clock of ``time.perf_counter``.
    """

    converted: list[dict[str, Any]]
    refused: list[tuple[str, str]]
    stats: dict[str, Any]
    pixels: dict[str, PixelCounts]
    commit: str | None
    began: float


def stored(features: Features, video: bool) -> Features:
    """The features as stored in the dataset: images instead of video unless ``video``."""
    return {
        name: feature | {"dtype": "image" if not video and dtype == "video" else dtype}
        for name, feature in features.items()
        for dtype in (feature["dtype"],)
    }


def contract_of(codec: Codec, fps: int, video: bool) -> Contract:
    """The contract of a new dataset, without statistics."""
    features = plain(stored(codec.features, video))
    return Contract.of(codec, fps=fps).replace(features=features)


def recipe_of(codec: Codec, contract: Contract, vcodec: str, task: str | None) -> Recipe:
    """Encoding settings of every episode."""
    video = any(feature["dtype"] == "video" for feature in contract.features.values())
    return Recipe(codec, int(contract.fps), ENCODERS[vcodec] if video else None, task)


def assemble(
    work_dir: WorkDirectory,
    dataset: Dataset,
    recipe: Recipe,
    workers: int | None,
    begin: Callable[[EncodedEpisode], "LeRobotWriter"],
) -> Assembled:
    """Encode the episodes that are not stored yet; write all with the writer from ``begin``.

    Raises:
        DatasetError: no episode could be converted.
    """
    began_with = commit()  # the checkout may change during hours of conversion
    writer: LeRobotWriter | None = None
    converted: list[dict[str, Any]] = []
    refused: list[tuple[str, str]] = []
    began, stored_before = time.perf_counter(), work_dir.done
    say = f"converting {len(dataset)} episodes to {work_dir.output}: loading LeRobot ..."
    print(say, file=sys.stderr, flush=True)
    try:
        with encoding(dataset, recipe, work_dir.episodes, workers) as outcomes:
            import lerobot.datasets.dataset_metadata  # noqa: F401 - slow, so imported while workers encode

            if work_dir.done == stored_before:
                began = time.perf_counter()  # the rate counts work, not the import
            with bar(total=len(dataset), desc="converting", unit="episode") as progress:
                for outcome in outcomes:
                    if isinstance(outcome, Path):
                        episode = stored_episode.load(outcome)
                        writer = writer or begin(episode)
                        writer.add(episode)
                        converted.append(episode.provenance)
                    else:
                        refused.append(outcome)
                    progress.update()
        if writer is None:
            source, reason = refused[0]
            raise DatasetError(
                f"none of the {len(refused)} episodes could be converted;"
                f" the first, {source}: {reason}"
            )
        writer.finish()
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    return Assembled(converted, refused, writer.stats, writer.pixels, began_with, began)


def write_provenance(
    work_dir: WorkDirectory, contract: Contract, stats: dict[str, Any], provenance: Provenance
) -> None:
    """Write contract and provenance to the dataset, which is then complete and durable."""
    contract.with_statistics(stats).save(work_dir.assembling / "meta" / "contract.json")
    provenance.save(work_dir.assembling)
    durable.sync_tree(work_dir.assembling)
    durable.rename(work_dir.assembling, work_dir.dataset)


def record(assembled: Assembled, options: dict[str, Any], edits: Edits | None) -> dict[str, Any]:
    """Provenance record: time, command, directory, versions, options, episodes, edit logs."""
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "directory": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": assembled.commit,
        "versions": versions(),
        "options": options,
        "episodes": assembled.converted,
        "refused": [{"source": source, "reason": why} for source, why in assembled.refused],
        **({} if edits is None else {"edits": edits.model_dump()}),
    }
