"""Append episodes to a converted LeRobot dataset, which stays whole all the while.

The new dataset is prepared beside the old one: the old files are linked, not copied, new rows and
videos go to new files, and LeRobot's own classes rewrite the metadata. Then the two directories
are swapped in one step.
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
from positronic.vendors.lerobot.conversion.job import Job, Workplace, describe, identity
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
    """Append the episodes of ``dataset`` to the one in ``output_dir``, converted as it was.

    Rows per second, video or pictures, and the encoder are the dataset's; of ``options`` only
    ``task``, ``workers``, ``share``, ``seed`` and ``resume`` count. Recordings that are in it
    already are skipped.

    Raises:
        UsageError: an option makes no sense.
        StorageError: no dataset of ours is there, or another or an unfinished conversion to it.
        ContractError: the dataset was made by another codec or at another ``fps``.
        DatasetError: not one episode could be converted.
    """
    started = time.perf_counter()
    output = Output(output_dir)
    workplace = output.workplace()
    output.settle()
    if not output.exists():
        raise StorageError(f"there is nothing at {output} to append to; convert makes a dataset")
    output.require_writable(workplace)
    with workplace.locked():
        base = storage.fetch(output.uri)
        contract, provenance = _require_ours(base, output)
        codec = contract.adopt(codec)
        options = _as_before(options or Options(), contract, provenance)
        _require_same(contract, codec, fps, options, output)
        chosen, skipped = _new_episodes(chosen_of(dataset, options), provenance)
        _forget_finished(workplace, provenance)
        if len(chosen) == 0:
            seconds = time.perf_counter() - started
            return report_of(output.uri, provenance, 0, seconds=seconds, skipped=skipped)
        require_one_convention(chosen, codec, provenance.episodes)
        state = state_of(base)
        recipe = assembly.recipe_of(codec, contract, options.vcodec, options.task)
        job = describe(chosen, contract, recipe, options.decisive()) | {"base": state}
        earlier = workplace.begin(job, resume=options.resume)
        with keeping(workplace, len(chosen)):
            if not workplace.dataset.is_dir():
                found = counted(base, options.workers)
                assembled = _assemble(workplace, base, found.counts, chosen, recipe, options)
                record = assembly.record(assembled, options.decisive())
                if found.decoded:  # of a dataset whose own version counted no pixels
                    record["decoded"] = found.decoded
                added = provenance.with_appended(record).counted(assembled.pixels)
                assembly.sign(workplace, contract, assembled.stats, added)
            if state_of(storage.fetch(output.uri, only=output.decides)) != state:
                raise StorageError(f"{output} was changed by someone else meanwhile; append again")
            provenance = Provenance.load(workplace.dataset)
            output.swap(workplace)
        workplace.clear()
    return report_of(
        output.uri,
        provenance,
        provenance.appended[-1].episodes,
        seconds=time.perf_counter() - started,
        skipped=skipped,
        earlier=earlier,
    )


def _require_ours(base: Path, output: Output) -> tuple[Contract, Provenance]:
    """Contract and provenance of the dataset, if they account for all that is in it."""
    contract = Contract.load(base / "meta")
    try:
        provenance = Provenance.load(base)
        there = layout.read_info(base).said.total_episodes
    except (OSError, DatasetError) as error:
        raise DatasetError(f"{output} is not whole: {error}; see verify") from error
    known = len(provenance.episodes)
    if known != there:
        raise DatasetError(
            f"{output} has {there} episodes, but its provenance accounts for {known}: another"
            " program has changed it, so what would be appended twice is unknown; convert anew"
        )
    return contract, provenance


def _as_before(options: Options, contract: Contract, provenance: Provenance) -> Options:
    kinds = {feature["dtype"] for feature in contract.features.values()}
    vcodec = provenance.vcodec
    if vcodec not in VCODECS:
        raise DatasetError(
            f"{NAME}: options.vcodec is {printable(repr(vcodec))}, expected one of"
            f" {', '.join(VCODECS)}; convert anew"
        )
    return replace(options, video="image" not in kinds, vcodec=vcodec, robot_type=None)


def _require_same(
    contract: Contract, codec: Codec, fps: int | None, options: Options, output: Output
) -> None:
    check(codec, contract.fps, options)
    if fps is not None and fps != contract.fps:
        raise ContractError(f"--fps={fps}: {output} has {contract.fps} rows a second; leave it out")
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
    """What tells a recording from others: its uid if it was given one."""
    return Recording(source=episode["source"], uid=episode.get("uid"), frames=0).key


def _forget_finished(workplace: Workplace, provenance: Provenance) -> None:
    """Tidy up after an append that was killed when all was done but the tidying."""
    begun: Job | None = workplace.begun
    known = {episode.key for episode in provenance.episodes}
    if begun and begun.get("base") and any(_key(each) in known for each in begun["episodes"]):
        workplace.clear()


def _assemble(
    workplace: Workplace,
    base: Path,
    counts: dict[str, PixelCounts],
    dataset: Dataset,
    recipe: Recipe,
    options: Options,
) -> assembly.Assembled:
    def begin(_: EncodedEpisode) -> LeRobotWriter:
        durable.link_tree(base, workplace.assembling)
        encoder = lerobot_config(options.vcodec) if recipe.encoder else None
        return LeRobotWriter.extend(workplace.assembling, video_encoder=encoder, pixels=counts)

    return assembly.assemble(workplace, dataset, recipe, options.workers, begin)
