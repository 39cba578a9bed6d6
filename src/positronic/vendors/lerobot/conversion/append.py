"""Append episodes to a converted LeRobot dataset, which stays complete meanwhile.

The new dataset is prepared beside the old one: old files are hard-linked, not copied, new rows and
videos are written to new files, and LeRobot's own classes rewrite the metadata. Then the two
directories are exchanged atomically.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation import storage
from foundation.errors import StorageError
from foundation.text import printable
from positronic.codec import Codec, Contract
from positronic.dataset import Dataset
from positronic.errors import ContractError, DatasetError
from positronic.vendors.lerobot.conversion import assembly, durable
from positronic.vendors.lerobot.conversion.dataset_writer import LeRobotWriter
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode, Recipe
from positronic.vendors.lerobot.conversion.encoders import VCODECS, lerobot_config
from positronic.vendors.lerobot.conversion.grips import require_one_convention
from positronic.vendors.lerobot.conversion.job import Job, WorkDirectory, describe, identity
from positronic.vendors.lerobot.conversion.output import Output, state_of
from positronic.vendors.lerobot.conversion.pipeline import check, chosen_of, keeping
from positronic.vendors.lerobot.conversion.provenance import NAME, Provenance, Recording
from positronic.vendors.lerobot.conversion.report import Options, Report, report_of
from positronic.vendors.lerobot.dataset import layout
from positronic.vendors.lerobot.dataset.statistics import PixelCounts
from positronic.vendors.lerobot.verification.repair import counted


def append_dataset(
    dataset: Dataset,
    codec: Codec,
    output_dir: str | Path,
    options: Options | None = None,
    *,
    fps: int | None = None,
) -> Report:
    """Append the episodes of ``dataset`` to the one in ``output_dir``, with the same settings.

    Rows per second, video or PNG, and the encoder are the dataset's; of ``options`` only
    ``task``, ``workers``, ``share``, ``seed`` and ``resume`` apply. Recordings that are already in
    the dataset are skipped.

    Raises:
        UsageError: an option is invalid.
        StorageError: there is no dataset of ours, or another or an unfinished conversion to it.
        ContractError: the dataset was made by another codec or at another ``fps``.
        DatasetError: no episode could be converted.
    """
    started = time.perf_counter()
    output = Output(output_dir)
    work_dir = output.work_dir()
    output.settle()
    if not output.exists():
        raise StorageError(f"no dataset at {output} to append to; create one with convert")
    output.require_writable(work_dir)
    with work_dir.locked():
        base = storage.fetch(output.uri)
        contract, provenance = _require_ours(base, output)
        codec = contract.adopt(codec)
        options = _as_before(options or Options(), contract, provenance)
        _require_same(contract, codec, fps, options, output)
        chosen, skipped = _new_episodes(chosen_of(dataset, options), provenance)
        _remove_finished(work_dir, provenance)
        if len(chosen) == 0:
            seconds = time.perf_counter() - started
            return report_of(output.uri, provenance, 0, seconds=seconds, skipped=skipped)
        require_one_convention(chosen, codec, provenance.episodes)
        state = state_of(base)
        recipe = assembly.recipe_of(codec, contract, options.vcodec, options.task)
        job = describe(chosen, contract, recipe, options.decisive()) | {"base": state}
        earlier = work_dir.begin(job, resume=options.resume)
        with keeping(work_dir, len(chosen)):
            if not work_dir.dataset.is_dir():
                found = counted(base, options.workers)
                assembled = _assemble(work_dir, base, found.counts, chosen, recipe, options)
                started = assembled.began
                record = assembly.record(assembled, options.decisive(), dataset.edits)
                if found.decoded:  # a dataset of a version without pixel counts
                    record["decoded"] = found.decoded
                added = provenance.with_appended(record).counted(assembled.pixels)
                assembly.write_provenance(work_dir, contract, assembled.stats, added)
            if state_of(storage.fetch(output.uri, only=output.decides)) != state:
                raise StorageError(
                    f"{output} was changed by another process meanwhile; append again"
                )
            provenance = Provenance.load(work_dir.dataset)
            output.swap(work_dir)
        work_dir.clear()
    return report_of(
        output.uri,
        provenance,
        provenance.appended[-1].episodes,
        seconds=time.perf_counter() - started,
        skipped=skipped,
        earlier=earlier,
    )


def _require_ours(base: Path, output: Output) -> tuple[Contract, Provenance]:
    """Contract and provenance of the dataset, if the latter lists all of its episodes."""
    contract = Contract.load(base / "meta")
    try:
        provenance = Provenance.load(base)
        total = layout.read_info(base).said.total_episodes
    except (OSError, DatasetError) as error:
        raise DatasetError(f"{output} is incomplete: {error}; run verify") from error
    known = len(provenance.episodes)
    if known != total:
        raise DatasetError(
            f"{output} has {total} episodes, but its provenance lists {known}: another"
            " program has changed it, so duplicates cannot be detected; convert again"
        )
    return contract, provenance


def _as_before(options: Options, contract: Contract, provenance: Provenance) -> Options:
    kinds = {feature["dtype"] for feature in contract.features.values()}
    vcodec = provenance.vcodec
    if vcodec not in VCODECS:
        raise DatasetError(
            f"{NAME}: options.vcodec is {printable(repr(vcodec))}, expected one of"
            f" {', '.join(VCODECS)}; convert again"
        )
    return replace(options, video="image" not in kinds, vcodec=vcodec, robot_type=None)


def _require_same(
    contract: Contract, codec: Codec, fps: int | None, options: Options, output: Output
) -> None:
    check(codec, contract.fps, options)
    if fps is not None and fps != contract.fps:
        raise ContractError(
            f"--fps={fps}: {output} has {contract.fps} rows per second; leave out --fps"
        )
    ours = assembly.contract_of(codec, int(contract.fps), options.video)
    contract.require_same(ours, f"the dataset {output}", "the codec", ignore=("stats_digest",))


def _new_episodes(dataset: Dataset, provenance: Provenance) -> tuple[Dataset, tuple[str, ...]]:
    """The episodes that are not in the dataset, and the sources of those that are."""
    dataset.prefetch(range(len(dataset)))
    known = {episode.key for episode in provenance.episodes}
    found = [identity(dataset, index) for index in range(len(dataset))]
    new = [index for index, episode in enumerate(found) if _key(episode) not in known]
    skipped = (episode["source"] for episode in found if _key(episode) in known)
    return dataset[new], tuple(skipped)


def _key(episode: dict[str, Any]) -> str:
    """Unique key of a recording: its uid if it has one."""
    return Recording(source=episode["source"], uid=episode.get("uid"), frames=0).key


def _remove_finished(work_dir: WorkDirectory, provenance: Provenance) -> None:
    """Clean up after an append that was killed before its own clean-up."""
    begun: Job | None = work_dir.begun
    known = {episode.key for episode in provenance.episodes}
    if begun and begun.get("base") and any(_key(each) in known for each in begun["episodes"]):
        work_dir.clear()


def _assemble(
    work_dir: WorkDirectory,
    base: Path,
    counts: dict[str, PixelCounts],
    dataset: Dataset,
    recipe: Recipe,
    options: Options,
) -> assembly.Assembled:
    def begin(_: EncodedEpisode) -> LeRobotWriter:
        durable.link_tree(base, work_dir.assembling)
        encoder = lerobot_config(options.vcodec) if recipe.encoder else None
        return LeRobotWriter.extend(work_dir.assembling, video_encoder=encoder, pixels=counts)

    return assembly.assemble(work_dir, dataset, recipe, options.workers, begin)
