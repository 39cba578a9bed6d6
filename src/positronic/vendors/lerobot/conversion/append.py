"""Adds episodes to a dataset that was converted before, which stays whole all the while.

The new dataset is prepared beside the old one: the old files are linked, not copied, new rows and
videos go to new files, and LeRobot's own classes rewrite the metadata. Then the two directories
are swapped in one step.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from positronic import storage
from positronic.codec import Codec, Contract
from positronic.dataset import Dataset
from positronic.errors import ContractError, DatasetError, StorageError
from positronic.vendors.lerobot.conversion import assembly
from positronic.vendors.lerobot.conversion.dataset_writer import LeRobotWriter
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode, Recipe
from positronic.vendors.lerobot.conversion.encoders import lerobot_config
from positronic.vendors.lerobot.conversion.job import Job, Workplace, describe, identity
from positronic.vendors.lerobot.conversion.output import Output
from positronic.vendors.lerobot.conversion.pipeline import check, chosen_of, keeping
from positronic.vendors.lerobot.conversion.report import Options, Report, refusals

# Rewritten by every append; the digest of these tells one state of a dataset from another.
STATE = ("meta/info.json", "meta/stats.json", "meta/provenance.json")

NO_UID = (None, "ts-0")


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
    if not (output.exists() or workplace.replaced.exists()):
        raise StorageError(f"there is nothing at {output} to append to; convert makes a dataset")
    with workplace.locked():
        output.mend_swap(workplace)
        base = storage.fetch(output.uri)
        contract, provenance = _require_ours(base, output)
        codec = contract.adopt(codec)
        options = _as_before(options or Options(), contract, provenance)
        _require_same(contract, codec, fps, options, output)
        chosen, skipped = _new_episodes(chosen_of(dataset, options), provenance)
        _forget_finished(workplace, provenance)
        if len(chosen) == 0:
            return Report(output.uri, 0, 0, time.perf_counter() - started, skipped=skipped)
        state = _state(base)
        recipe = assembly.recipe_of(codec, contract, options.vcodec, options.task)
        job = describe(chosen, contract, recipe, options.decisive()) | {"base": state}
        earlier = workplace.begin(job, resume=options.resume)
        with keeping(workplace, len(chosen)):
            if not workplace.dataset.is_dir():
                assembled = _assemble(workplace, base, chosen, recipe, options)
                record = assembly.record(assembled, options.decisive())
                added = _with_appended(provenance, record)
                assembly.sign(workplace, contract, assembled.stats, added)
            if _state(storage.fetch(output.uri, only=STATE.__contains__)) != state:
                raise StorageError(f"{output} was changed by someone else meanwhile; append again")
            record = assembly.provenance_in(workplace.dataset)["appended"][-1]
            output.swap(workplace)
        workplace.clear()
    seconds = time.perf_counter() - started
    counts = record["episodes"], record["frames"], seconds
    return Report(output.uri, *counts, refusals(record), skipped, earlier)


def _require_ours(base: Path, output: Output) -> tuple[Contract, dict[str, Any]]:
    """Contract and provenance of the dataset, if they account for all that is in it."""
    contract = Contract.load(base / "meta")
    try:
        provenance = assembly.provenance_in(base)
        info = json.loads((base / "meta" / "info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{output} is not whole: {error}; see verify") from error
    known, there = len(provenance["episodes"]), info["total_episodes"]
    if known != there:
        raise DatasetError(
            f"{output} has {there} episodes, but its provenance accounts for {known}: another"
            " program has changed it, so what would be appended twice is unknown; convert anew"
        )
    return contract, provenance


def _as_before(options: Options, contract: Contract, provenance: dict[str, Any]) -> Options:
    kinds = {feature["dtype"] for feature in contract.features.values()}
    vcodec = provenance["options"]["vcodec"]
    return replace(options, video="image" not in kinds, vcodec=vcodec, robot_type=None)


def _require_same(
    contract: Contract, codec: Codec, fps: int | None, options: Options, output: Output
) -> None:
    check(codec, contract.fps, options)
    if fps is not None and fps != contract.fps:
        raise ContractError(f"--fps={fps}: {output} has {contract.fps} rows a second; leave it out")
    ours = assembly.contract_of(codec, int(contract.fps), options.video)
    contract.require_same(ours, f"the dataset {output}", "the codec", ignore=("stats_digest",))


def _new_episodes(dataset: Dataset, provenance: dict[str, Any]) -> tuple[Dataset, tuple[str, ...]]:
    """The episodes that are not in the dataset, and the sources of those that are."""
    dataset.prefetch(range(len(dataset)))
    known = {_key(episode) for episode in provenance["episodes"]}
    found = [identity(dataset, index) for index in range(len(dataset))]
    new = [index for index, episode in enumerate(found) if _key(episode) not in known]
    skipped = (episode["source"] for episode in found if _key(episode) in known)
    return dataset[new], tuple(skipped)


def _key(episode: dict[str, Any]) -> str:
    """What tells a recording from others: its uid if it was given one."""
    uid = episode.get("uid")
    return str(episode["source"] if uid in NO_UID else uid)


def _forget_finished(workplace: Workplace, provenance: dict[str, Any]) -> None:
    """Tidy up after an append that was killed when all was done but the tidying."""
    begun: Job | None = workplace.begun
    known = {_key(episode) for episode in provenance["episodes"]}
    if begun and begun.get("base") and any(_key(each) in known for each in begun["episodes"]):
        workplace.clear()


def _state(base: Path) -> str:
    digest = hashlib.sha256()
    for name in STATE:
        digest.update((base / name).read_bytes())
    return digest.hexdigest()


def _assemble(
    workplace: Workplace, base: Path, dataset: Dataset, recipe: Recipe, options: Options
) -> assembly.Assembled:
    def begin(_: EncodedEpisode) -> LeRobotWriter:
        shutil.copytree(base, workplace.assembling, copy_function=_link)
        encoder = lerobot_config(options.vcodec) if recipe.encoder else None
        return LeRobotWriter.extend(workplace.assembling, video_encoder=encoder)

    return assembly.assemble(workplace, dataset, recipe, options.workers, begin)


def _link(source: str, target: str) -> None:
    """Link a file; copy those directly in ``meta``, which are rewritten where they are."""
    if Path(source).parent.name != "meta":
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copyfile(source, target)


def _with_appended(provenance: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The provenance with the new episodes, and with who appended them and when."""
    new = record["episodes"]
    sources = {episode["source"] for episode in new}
    counts = {"episodes": len(new), "frames": sum(episode["frames"] for episode in new)}
    return provenance | {
        "episodes": [*provenance["episodes"], *new],
        "refused": [each for each in provenance["refused"] if each["source"] not in sources],
        "appended": [*provenance.get("appended", []), record | counts],
    }
