"""Assemble a LeRobot dataset of encoded episodes, for converting and appending alike."""

import os
import platform
import sys
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
from positronic.errors import DatasetError
from positronic.source import commit
from positronic.vendors.lerobot.conversion import durable, stored_episode
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode, Recipe
from positronic.vendors.lerobot.conversion.encoders import ENCODERS
from positronic.vendors.lerobot.conversion.job import Workplace
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.conversion.workers import encoding
from positronic.vendors.lerobot.dataset.statistics import PixelCounts

if TYPE_CHECKING:
    from positronic.vendors.lerobot.conversion.dataset_writer import LeRobotWriter


@dataclass(frozen=True)
class Assembled:
    """What became of the episodes: records of those converted, source and reason of the others.

    ``stats`` and ``pixels`` are those of the whole dataset; ``commit`` is the project's, as it was
    before the work began.
    """

    converted: list[dict[str, Any]]
    refused: list[tuple[str, str]]
    stats: dict[str, Any]
    pixels: dict[str, PixelCounts]
    commit: str | None


def stored(features: Features, video: bool) -> Features:
    """The features as the dataset has them: pictures instead of video if so wanted."""
    return {
        name: feature | {"dtype": "image" if not video and dtype == "video" else dtype}
        for name, feature in features.items()
        for dtype in (feature["dtype"],)
    }


def contract_of(codec: Codec, fps: int, video: bool) -> Contract:
    """The contract of a dataset to be, its statistics still open."""
    features = plain(stored(codec.features, video))
    return Contract.of(codec, fps=fps).replace(features=features)


def recipe_of(codec: Codec, contract: Contract, vcodec: str, task: str | None) -> Recipe:
    """How every episode is encoded."""
    video = any(feature["dtype"] == "video" for feature in contract.features.values())
    return Recipe(codec, int(contract.fps), ENCODERS[vcodec] if video else None, task)


def assemble(
    workplace: Workplace,
    dataset: Dataset,
    recipe: Recipe,
    workers: int | None,
    begin: Callable[[EncodedEpisode], "LeRobotWriter"],
) -> Assembled:
    """Encode what is not yet durable and write all of it with the writer that ``begin`` makes.

    Raises:
        DatasetError: not one episode could be converted.
    """
    began_with = commit()  # hours later, a checkout may be at another one
    writer: LeRobotWriter | None = None
    converted: list[dict[str, Any]] = []
    refused: list[tuple[str, str]] = []
    try:
        with (
            encoding(dataset, recipe, workplace.episodes, workers) as outcomes,
            bar(total=len(dataset), desc="converting", unit="episode") as progress,
        ):
            import lerobot.datasets.dataset_metadata  # noqa: F401 - slow, so while others work

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
    return Assembled(converted, refused, writer.stats, writer.pixels, began_with)


def sign(
    workplace: Workplace, contract: Contract, stats: dict[str, Any], provenance: Provenance
) -> None:
    """Add contract and provenance to what was assembled; it is whole and durable after this."""
    contract.with_statistics(stats).save(workplace.assembling / "meta" / "contract.json")
    provenance.save(workplace.assembling)
    durable.sync_tree(workplace.assembling)
    durable.rename(workplace.assembling, workplace.dataset)


def record(assembled: Assembled, options: dict[str, Any]) -> dict[str, Any]:
    """Who wrote it, when, where, with what; for the provenance."""
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
    }
