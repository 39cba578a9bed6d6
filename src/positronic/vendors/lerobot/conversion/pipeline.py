"""Conversion pipeline: check, encode every episode, assemble, sign, put in place."""

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
    Workplace,
    brief,
    describe,
    differences,
    validated,
)
from positronic.vendors.lerobot.conversion.output import Output
from positronic.vendors.lerobot.conversion.provenance import Provenance
from positronic.vendors.lerobot.conversion.report import Options, Report, report_of

__all__ = ["Options", "Report", "convert_dataset"]


def convert_dataset(
    dataset: Dataset, codec: Codec, output_dir: str | Path, fps: int, options: Options | None = None
) -> Report:
    """Convert the episodes of ``dataset`` with ``codec`` to rows at ``fps``.

    The result is prepared beside ``output_dir``, or in the cache for ``s3://``, and gets its place
    when it is whole. Whatever stops the work, the episodes that are done are kept, and with
    ``options.resume`` the same call goes on with them.

    Raises:
        UsageError: an option makes no sense.
        StorageError: ``output_dir`` exists, or another or an unfinished conversion to it, or it
            cannot be written to.
        DatasetError: not one episode could be converted.
    """
    options = options or Options()
    started = time.perf_counter()
    output = Output(output_dir)
    workplace = output.workplace()
    check(codec, fps, options)
    output.settle()
    if not options.resume:
        _require_free(output, workplace)
    output.require_writable(workplace)
    dataset = chosen_of(dataset, options)
    contract = assembly.contract_of(codec, int(fps), options.video)
    recipe = assembly.recipe_of(codec, contract, options.vcodec, options.task)
    job = describe(dataset, contract, recipe, options.decisive())
    with workplace.locked():
        if options.resume and output.is_whole():
            report = _finished(output, job)
            workplace.clear()
            return report
        _require_free(output, workplace)
        require_one_convention(dataset, codec)
        earlier = workplace.begin(job, resume=options.resume)
        with keeping(workplace, len(dataset)):
            if not workplace.dataset.is_dir():
                assembled = _assemble(workplace, dataset, recipe, options)
                record = assembly.record(assembled, options.decisive()) | {"job": brief(job)}
                signed = Provenance(record).counted(assembled.pixels)
                assembly.sign(workplace, contract, assembled.stats, signed)
            provenance = Provenance.load(workplace.dataset)
            output.put(workplace.dataset)
        workplace.clear()
    report = report_of(str(output), provenance)
    return replace(report, seconds=time.perf_counter() - started, earlier=earlier)


def check(codec: Codec, fps: float, options: Options) -> None:
    """Refuse what cannot work before anything is read."""
    if fps != int(fps) or fps < 1:
        raise UsageError(f"--fps={fps}: LeRobot datasets have a whole number of frames a second")
    if "action" not in codec.features:
        raise UsageError(f"codec '{codec.name}' has no action, so nothing could be learned from it")
    if options.vcodec not in VCODECS:
        raise UsageError(f"--vcodec={options.vcodec}: give one of {', '.join(VCODECS)}")
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers={options.workers}: give at least 0, for none but this process")
    if not 0 < options.share <= 1:
        raise UsageError(f"--share={options.share}: give more than 0 and at most 1")
    for feature in codec.features.values():
        height, width = feature["shape"][:2] if feature["dtype"] == "video" else (0, 0)
        if options.video and (height % 2 or width % 2):
            raise UsageError(f"video needs even sizes, not {height}x{width}; or give --video=False")


def chosen_of(dataset: Dataset, options: Options) -> Dataset:
    """The share of the episodes that is to be converted; DatasetError if there are none at all."""
    if len(dataset) == 0:
        raise DatasetError("the dataset has no episodes; record some first, or check its path")
    return dataset if options.share == 1 else share_of(dataset, options.share, options.seed)


@contextmanager
def keeping(workplace: Workplace, episodes: int) -> Iterator[None]:
    """Note with whatever stops the work how much is kept, and how to go on."""
    try:
        yield
    except BaseException as error:
        if workplace.worth_keeping:
            error.add_note(
                f"{workplace.done} of {episodes} episodes are kept in {workplace.directory};"
                " the same command with --resume=True goes on with them"
            )
        raise


def _require_free(output: Output, workplace: Workplace) -> None:
    if output.is_whole():
        raise StorageError(f"{output} exists already; give another --output_dir or remove it")
    if output.exists() and not workplace.dataset.is_dir():
        raise StorageError(
            f"{output} was being published by another machine; go on there with --resume=True,"
            " or remove it"
        )


def _finished(output: Output, job: Job) -> Report:
    """The report of a conversion that was finished before; StorageError if it was another."""
    provenance = output.provenance()
    if provenance is None or provenance.job is None:
        raise StorageError(
            f"{output} exists already and is no conversion that could be resumed;"
            " give another --output_dir or remove it"
        )
    found = differences(validated(provenance.job, f"{output}: its provenance's job"), job)
    if found:
        raise StorageError(
            f"{output} is finished, and was converted otherwise (then against now):"
            f" {'; '.join(found)}. Give another --output_dir"
        )
    return replace(report_of(str(output), provenance), finished_before=True)


def _assemble(
    workplace: Workplace, dataset: Dataset, recipe: Recipe, options: Options
) -> assembly.Assembled:
    def begin(first: EncodedEpisode) -> LeRobotWriter:
        return LeRobotWriter.create(
            workplace.assembling,
            features=assembly.stored(recipe.codec.features, options.video),
            fps=recipe.fps,
            robot_type=options.robot_type or first.robot_type,
            video_encoder=lerobot_config(options.vcodec) if recipe.encoder else None,
        )

    return assembly.assemble(workplace, dataset, recipe, options.workers, begin)
