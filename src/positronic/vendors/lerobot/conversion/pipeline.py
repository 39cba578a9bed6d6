"""Conversion pipeline: check, encode episodes, assemble, write provenance, publish."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from foundation.errors import StorageError, UsageError
from positronic.codec import Codec
from positronic.dataset import Dataset
from positronic.dataset.subsets import share_of
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion import assembly
from positronic.vendors.lerobot.conversion.dataset_writer import LeRobotWriter
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode, Recipe
from positronic.vendors.lerobot.conversion.encoders import VCODECS, lerobot_config
from positronic.vendors.lerobot.conversion.grips import require_one_convention
from positronic.vendors.lerobot.conversion.job import (
    Job,
    WorkDirectory,
    brief,
    describe,
    differences,
    validated,
)
from positronic.vendors.lerobot.conversion.output import Output
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.conversion.report import Options, Report, report_of
from positronic.vendors.lerobot.conversion.signals import require_any, sized_by

__all__ = ["Options", "Report", "convert_dataset"]


def convert_dataset(
    dataset: Dataset, codec: Codec, output_dir: str | Path, fps: int, options: Options | None = None
) -> Report:
    """Convert the episodes of ``dataset`` with ``codec`` to rows at ``fps``.

    The result is prepared beside ``output_dir``, or in the cache for ``s3://``, and moved there
    when complete. If it is interrupted, finished episodes are kept, and the same call with
    ``options.resume`` continues.

    Raises:
        UsageError: an option is invalid.
        StorageError: ``output_dir`` exists or is not writable, or another or an unfinished
            conversion to it exists.
        DatasetError: no episode could be converted.
    """
    options = options or Options()
    started = time.perf_counter()
    output = Output(output_dir)
    work_dir = output.work_dir()
    check(codec, fps, options)
    output.settle()
    if not options.resume:
        _require_free(output, work_dir)
    output.require_writable(work_dir)
    dataset = chosen_of(dataset, options)
    codec = sized_by(dataset, codec)
    contract = assembly.contract_of(codec, int(fps), options.video)
    recipe = assembly.recipe_of(codec, contract, options.vcodec, options.task)
    job = describe(dataset, contract, recipe, options.decisive())
    with work_dir.locked():
        if options.resume and output.is_complete():
            report = _finished(output, job)
            work_dir.clear()
            return report
        _require_free(output, work_dir)
        require_one_convention(dataset, codec)
        require_any(dataset, codec)
        earlier = work_dir.begin(job, resume=options.resume)
        with keeping(work_dir, len(dataset)):
            if not work_dir.dataset.is_dir():
                assembled = _assemble(work_dir, dataset, recipe, options)
                started = assembled.began
                record = assembly.record(assembled, options.decisive(), dataset.edits) | {
                    "job": brief(job)
                }
                made_by = Provenance(record).counted(assembled.pixels)
                assembly.write_provenance(work_dir, contract, assembled.stats, made_by)
            provenance = Provenance.load(work_dir.dataset)
            output.put(work_dir.dataset)
        work_dir.clear()
    report = report_of(str(output), provenance)
    return replace(report, seconds=time.perf_counter() - started, earlier=earlier)


def check(codec: Codec, fps: float, options: Options) -> None:
    """Check the options before anything is read."""
    if fps != int(fps) or fps < 1:
        raise UsageError(f"--fps={fps}: expected a whole number of rows per second")
    if "action" not in codec.features:
        raise UsageError(f"codec '{codec.name}' has no action, which a training dataset needs")
    if options.vcodec not in VCODECS:
        raise UsageError(f"--vcodec={options.vcodec}: give one of {', '.join(VCODECS)}")
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers={options.workers}: expected 0 (no worker processes) or more")
    if not 0 < options.share <= 1:
        raise UsageError(f"--share={options.share}: expected more than 0 and at most 1")
    for feature in codec.features.values():
        height, width = feature["shape"][:2] if feature["dtype"] == "video" else (0, 0)
        if options.video and (height % 2 or width % 2):
            raise UsageError(
                f"video needs even sizes, got {height}x{width}; change it, or use --video=False"
            )


def chosen_of(dataset: Dataset, options: Options) -> Dataset:
    """The share of the episodes to convert; DatasetError if the dataset is empty."""
    if len(dataset) == 0:
        raise DatasetError("the dataset has no episodes; record some first, or check its path")
    return dataset if options.share == 1 else share_of(dataset, options.share, options.seed)


@contextmanager
def keeping(work_dir: WorkDirectory, episodes: int) -> Iterator[None]:
    """Add a note to any exception about the stored episodes, and how to resume."""
    try:
        yield
    except BaseException as error:
        if work_dir.worth_keeping:
            error.add_note(
                f"{work_dir.done} of {episodes} episodes are kept in {work_dir.directory};"
                " the same command with --resume=True continues with them"
            )
        raise


def _require_free(output: Output, work_dir: WorkDirectory) -> None:
    if output.is_complete():
        raise StorageError(f"{output} already exists; give another --output_dir or remove it")
    if output.exists() and not work_dir.dataset.is_dir():
        raise StorageError(
            f"{output} was being published by another machine; continue there with --resume=True,"
            " or remove it"
        )


def _finished(output: Output, job: Job) -> Report:
    """The report of an already finished conversion; StorageError if its inputs differ."""
    provenance = output.provenance()
    if provenance is None or provenance.job is None:
        raise StorageError(
            f"{output} already exists and is not a conversion that can be resumed;"
            " give another --output_dir or remove it"
        )
    found = differences(validated(provenance.job, f"{output}: its provenance's job"), job)
    if found:
        raise StorageError(
            f"{output} is finished, and was converted with other inputs (then against now):"
            f" {'; '.join(found)}. Give another --output_dir"
        )
    return replace(report_of(str(output), provenance), finished_before=True)


def _assemble(
    work_dir: WorkDirectory, dataset: Dataset, recipe: Recipe, options: Options
) -> assembly.Assembled:
    def begin(first: EncodedEpisode) -> LeRobotWriter:
        return LeRobotWriter.create(
            work_dir.assembling,
            features=assembly.stored(recipe.codec.features, options.video),
            fps=recipe.fps,
            robot_type=options.robot_type or first.robot_type,
            video_encoder=lerobot_config(options.vcodec) if recipe.encoder else None,
        )

    return assembly.assemble(work_dir, dataset, recipe, options.workers, begin)
