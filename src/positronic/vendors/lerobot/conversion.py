"""A whole conversion: check, encode every episode, write, sign, publish at once."""

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from positronic.codec import Codec, Contract
from positronic.codec.base import Features
from positronic.codec.contract import versions
from positronic.dataset import Dataset
from positronic.errors import DatasetError, StorageError, UsageError
from positronic.progress import bar
from positronic.vendors.lerobot.encoders import ENCODERS, VCODECS, lerobot_config


@dataclass(frozen=True)
class Options:
    """What may be left open.

    Attributes:
        task: what the robot was to do, instead of what each episode says.
        video: store images as video, otherwise as PNG pictures.
        workers: processes that encode; by default one per processor where there are images.
        vcodec: one of `VCODECS`.
        robot_type: written into the dataset, instead of what the first episode says.
    """

    task: str | None = None
    video: bool = True
    workers: int | None = None
    vcodec: str = "h264"
    robot_type: str | None = None


@dataclass(frozen=True)
class Report:
    """How a conversion ended; ``refused`` are pairs of episode and reason."""

    output_dir: Path
    episodes: int
    frames: int
    seconds: float
    refused: tuple[tuple[str, str], ...]

    def warnings(self) -> list[str]:
        """One line for each episode that was left out, and their number."""
        if not self.refused:
            return []
        total = self.episodes + len(self.refused)
        lines = [f"refused {source}: {reason}" for source, reason in self.refused]
        return [*lines, f"warning: {len(self.refused)} of {total} episodes were refused"]

    def summary(self) -> str:
        """What was written, in one line."""
        return (
            f"converted {self.episodes} episodes, {self.frames} frames in {self.seconds:.1f} s"
            f" ({self.frames / max(self.seconds, 1e-9):.0f} frames/s) to {self.output_dir}"
        )


def convert_dataset(
    dataset: Dataset, codec: Codec, output_dir: str | Path, fps: int, options: Options | None = None
) -> Report:
    """Convert the episodes of ``dataset`` with ``codec`` to rows at ``fps``.

    The result is written beside ``output_dir`` and renamed to it when it is whole.

    Raises:
        UsageError: an option makes no sense.
        StorageError: ``output_dir`` exists, or is not on this machine.
        DatasetError: not one episode could be converted.
    """
    options = options or Options()
    started = time.perf_counter()
    target = _local_path(output_dir)
    _check(codec, fps, options)
    if target.exists():
        raise StorageError(f"{target} exists already; give another --output_dir or remove it")
    if len(dataset) == 0:
        raise DatasetError("the dataset has no episodes; record some first, or check its path")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        episodes, refused = _write(dataset, codec, scratch, int(fps), options)
        if target.exists():
            raise StorageError(f"{target} appeared meanwhile; nothing was written into it")
        (scratch / "dataset").rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    frames = sum(int(episode["frames"]) for episode in episodes)
    seconds = time.perf_counter() - started
    return Report(target, len(episodes), frames, seconds, tuple(refused))


def _local_path(path: str | Path) -> Path:
    if "://" in str(path):
        raise StorageError(f"{path} is not a local path; convert to one and upload the result")
    return Path(path).expanduser().absolute()


def _check(codec: Codec, fps: int, options: Options) -> None:
    """Refuse what cannot work before anything is read."""
    if fps != int(fps) or fps < 1:
        raise UsageError(f"--fps={fps}: LeRobot datasets have a whole number of frames a second")
    if "action" not in codec.features:
        raise UsageError(f"codec '{codec.name}' has no action, so nothing could be learned from it")
    if options.vcodec not in VCODECS:
        raise UsageError(f"--vcodec={options.vcodec}: give one of {', '.join(VCODECS)}")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers={options.workers}: give at least 1")
    for feature in codec.features.values():
        height, width = feature["shape"][:2] if feature["dtype"] == "video" else (0, 0)
        if options.video and (height % 2 or width % 2):
            raise UsageError(f"video needs even sizes, not {height}x{width}; or give --video=False")


def _stored(features: Features, video: bool) -> Features:
    """The features as the dataset has them: pictures instead of video if so wanted."""
    return {
        name: feature | {"dtype": "image" if not video and dtype == "video" else dtype}
        for name, feature in features.items()
        for dtype in (feature["dtype"],)
    }


def _write(
    dataset: Dataset, codec: Codec, scratch: Path, fps: int, options: Options
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Write the dataset to ``scratch/dataset``; the converted episodes and the refused ones."""
    from positronic.vendors.lerobot.dataset_writer import LeRobotWriter
    from positronic.vendors.lerobot.encode_episode import EncodedEpisode, Recipe
    from positronic.vendors.lerobot.workers import encode_all

    features = _stored(codec.features, options.video)
    encoder = plain = None
    if any(feature["dtype"] == "video" for feature in features.values()):
        encoder = lerobot_config(options.vcodec)
        plain = ENCODERS[options.vcodec]
    recipe = Recipe(codec, fps, plain, options.task)
    writer: LeRobotWriter | None = None
    converted: list[dict[str, Any]] = []
    refused: list[tuple[str, str]] = []
    outcomes = encode_all(dataset, recipe, scratch / "episodes", options.workers)
    try:
        with bar(total=len(dataset), desc="converting", unit="episode") as progress:
            for outcome in outcomes:
                if isinstance(outcome, EncodedEpisode):
                    writer = writer or LeRobotWriter(
                        scratch / "dataset",
                        features=features,
                        fps=fps,
                        robot_type=options.robot_type or outcome.robot_type,
                        video_encoder=encoder,
                    )
                    writer.add(outcome)
                    converted.append(outcome.provenance)
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
        outcomes.close()
        if writer is not None:
            writer.discard()
        raise
    contract = Contract.of(codec, fps=fps, stats=writer.stats).replace(
        features=json.loads(json.dumps(features))
    )
    contract.save(scratch / "dataset" / "meta" / "contract.json")
    _save_provenance(scratch / "dataset" / "meta" / "provenance.json", options, converted, refused)
    return converted, refused


def _save_provenance(
    path: Path,
    options: Options,
    converted: list[dict[str, Any]],
    refused: list[tuple[str, str]],
) -> None:
    document = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "directory": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "options": vars(options),
        "episodes": converted,
        "refused": [{"source": source, "reason": reason} for source, reason in refused],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
