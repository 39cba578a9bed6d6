"""``positronic-inference open_loop``: compare a policy's actions with recorded ones."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import configuronic as cfn

from foundation import storage
from foundation.console import say_made
from foundation.errors import FoundationError, StorageError, UsageError
from foundation.files import replace_text
from foundation.text import printable
from positronic.cfg import ds
from positronic.cfg.components import DATASET
from positronic.cfg.ds.split import indices
from positronic.cfg.policy import POLICY, placeholder
from positronic.cli import kinds
from positronic.cli.kinds import kinds_of
from positronic.dataset.trained_on import dataset_name, is_among, without_recordings
from positronic.errors import DatasetError, EpisodeError

if TYPE_CHECKING:
    from positronic.dataset import Dataset, Episode
    from positronic.inference.open_loop.lerobot_data import VectorComparison
    from positronic.inference.open_loop.tracks import Comparison
    from positronic.policy import Policy

JSON, HTML = "open_loop.json", "open_loop.html"
FORMAT = 1


@cfn.config(policy=placeholder)
def open_loop(
    policy: Annotated[Any, POLICY],
    dataset: Annotated[Any, DATASET],
    output_dir: str,
    episodes: Any = None,
    mask: str | None = None,
    fps: float | None = None,
) -> None:
    """Compare a policy's actions with recorded ones, on episodes that it was not trained on.

    The policy gets the recorded observations at the rate of a rollout; its actions are not
    executed. Prints the mean absolute error of its targets, beside that of holding still, and
    writes open_loop.json (numbers and curves) and open_loop.html (charts) to --output_dir.

    Example:
        positronic-inference open_loop --policy=.remote --dataset=RAW --output_dir=OUT

    Args:
        policy: The policy to evaluate, such as .remote with --policy.host and --policy.port.
        dataset: The raw episodes: a path, local or in S3, or a config such as
            @positronic.cfg.ds.split.masked. Or a LeRobot dataset, for a policy that was trained on
            its features as they are.
        output_dir: Directory of the two files; created if missing. In S3, s3://bucket/key, it must
            be new.
        episodes: Number of episodes from the first, or a list of indices such as [0,4,8]; all if
            not given.
        mask: Only episodes whose static mask.NAME is true, such as --mask=valid for the held-out
            episodes of an imported file.
        fps: Steps per second; by default the rate at which the policy was trained.
    """
    from foundation.progress import track
    from positronic.inference.open_loop.tracks import compare

    POLICY.require(policy, "policy")
    if isinstance(dataset, str) and kinds_of(dataset)[:1] == [kinds.DATASET]:
        if mask is not None or fps is not None:
            policy.close()
            raise UsageError(
                f"{dataset} is a LeRobot dataset, which has no masks and its own rate; leave --mask"
                " and --fps away, and choose by --episodes"
            )
        _vectors(policy, dataset, output_dir, episodes)
        return
    dataset = ds.opened(dataset)
    cause: FoundationError | None = None
    with storage.output_directory(output_dir) as out:
        _require_new(out)
        chosen = choose(dataset, episodes, mask)
        results: list[Comparison] = []
        try:
            known = trained_on(dataset, chosen, policy.meta)
            if note := _note(known, len(chosen), policy.meta):
                print(f"warning: {note}", file=sys.stderr, flush=True)
            for index in track(chosen, total=len(chosen), desc="comparing", unit="episode"):
                results.append(compare(dataset[index], index, policy, fps))
        except FoundationError as error:
            if not results:
                raise
            cause = error
        finally:
            policy.close()
        _write(out, results, dataset, policy, known, mask, None if cause is None else str(cause))
    if cause is not None:
        raise cause
    from positronic.inference.open_loop.tracks import UNITS

    _print(results, mean_errors(results), UNITS)
    say_made("report", storage.join(output_dir, HTML))


def _vectors(policy: Any, place: str, output_dir: str, episodes: Any) -> None:
    """Compare action vectors on a LeRobot dataset."""
    from foundation.progress import track
    from positronic.inference.open_loop import lerobot_data
    from positronic.inference.open_loop.page import render_vectors

    with storage.output_directory(output_dir) as out:
        _require_new(out)
        try:
            data = lerobot_data.LeRobotEpisodes(place)
            chosen = choose(data, episodes, None)
            if note := lerobot_data.note_of(data, policy.meta):
                print(f"warning: {note}", file=sys.stderr, flush=True)
            results = [
                lerobot_data.compare(data, index, policy)
                for index in track(chosen, total=len(chosen), desc="comparing", unit="episode")
            ]
            meta = without_recordings(policy.meta)
        finally:
            policy.close()
        names = lerobot_data.names_of(meta, results[0].recorded.shape[1])
        means = lerobot_data.mean_errors(results, names)
        document = {
            "format": FORMAT,
            "policy": meta,
            "dataset": place,
            "error": None,
            "steps": sum(len(result.times) for result in results),
            "mean_absolute_error": means,
            "episodes": [_vector_entry(result, names) for result in results],
        }
        origin = {
            "dataset": place,
            "policy": str(meta.get("type", "unknown")),
            "checkpoint": str(meta.get("checkpoint_path", meta.get("checkpoint_id", "unknown"))),
        }
        page = render_vectors(results, names, means, origin=origin, note=note)
        out.mkdir(parents=True, exist_ok=True)
        replace_text(out / HTML, page)
        replace_text(out / JSON, json.dumps(document, indent=1, default=str) + "\n")
    _print(results, means, dict.fromkeys(names, ""))
    say_made("report", storage.join(output_dir, HTML))


def _vector_entry(result: "VectorComparison", names: "Sequence[str]") -> dict[str, Any]:
    from positronic.inference.open_loop.lerobot_data import mean_errors

    return {
        "index": result.index,
        "name": result.name,
        "mean_absolute_error": mean_errors([result], names),
        "inference_ms": [round(1e3 * seconds, 3) for seconds in result.latencies],
        "asked_s": result.asked,
        "times_s": result.times.round(6).tolist(),
        "recorded": result.recorded.round(6).tolist(),
        "served": result.served.round(6).tolist(),
    }


def _require_new(out: Path) -> None:
    if (out / JSON).exists():
        raise StorageError(f"{out} already has an open-loop result; choose another --output_dir")


def choose(dataset: Any, episodes: Any, mask: str | None) -> list[int]:
    """Indices of the episodes selected by ``--episodes`` and ``--mask``; at least one.

    Of a LeRobot dataset there is only the number of its episodes, and no mask.

    UsageError for an index that does not exist or does not have the mask, DatasetError if no
    episode has the mask.
    """
    available = list(range(len(dataset))) if mask is None else indices(dataset, mask)
    if not available:
        raise DatasetError("the dataset has no episodes; record or import some first")
    if episodes is None:
        return available
    if isinstance(episodes, int) and not isinstance(episodes, bool) and episodes > 0:
        return available[:episodes]
    wanted = list(episodes) if isinstance(episodes, list | tuple) else []
    unknown = [i for i in wanted if i not in available or isinstance(i, bool)]
    if not wanted or unknown:
        raise UsageError(
            f"--episodes={episodes}: expected a number above 0, or a list of indices from "
            f"{_ranges(available)}"
        )
    return wanted


def trained_on(dataset: "Dataset", chosen: "Sequence[int]", meta: Mapping[str, Any]) -> list[int]:
    """Those of the chosen episodes on which the policy was trained, as far as its meta says."""
    if dataset_name(meta) is None:
        return []
    dataset.prefetch(chosen)
    found = []
    for index in chosen:
        with suppress(EpisodeError):  # damaged: comparing it says how
            if is_among(dataset[index].uid, meta):
                found.append(index)
    return found


def _note(known: "Sequence[int]", count: int, meta: Mapping[str, Any]) -> str | None:
    if not known:
        return None
    which = "this episode" if count == 1 else f"{len(known)} of these {count} episodes"
    return (
        f"the policy was trained on {which} (dataset {printable(dataset_name(meta))}): the errors"
        " say how well it remembers, not how well it acts on what it has not seen"
    )


def mean_errors(results: "Sequence[Comparison]") -> dict[str, dict[str, float]]:
    """Mean absolute error over all steps of all episodes, of served actions and of holding."""
    import numpy as np

    from positronic.inference.open_loop.tracks import UNITS

    means: dict[str, dict[str, float]] = {}
    for who in ("served", "hold"):
        errors = [getattr(result, who).errors(result.recorded) for result in results]
        means[who] = {
            name: float(np.concatenate([error[name] for error in errors]).mean()) for name in UNITS
        }
    return means


def _print(
    results: "Sequence[Comparison | VectorComparison]",
    means: Mapping[str, Mapping[str, float]],
    units: Mapping[str, str],
) -> None:
    steps = sum(len(result.times) for result in results)
    asked = sum(len(result.asked) for result in results)
    print(f"{len(results)} episodes, {steps} steps, {asked} inferences")
    print(f"{'mean absolute error':<24}{'served':>10}{'holding':>10}{'ratio':>8}")
    for name, unit in units.items():
        served, hold = means["served"][name], means["hold"][name]
        ratio = f"{served / hold:.2f}" if hold > 0 else "-"
        print(f"  {f'{name} {unit}':<22}{served:>10.3f}{hold:>10.3f}{ratio:>8}")


def _write(
    out: Path,
    results: "Sequence[Comparison]",
    dataset: "Dataset",
    policy: "Policy",
    known: "Sequence[int]",
    mask: str | None,
    error: str | None,
) -> None:
    from positronic.inference.open_loop.page import render_page

    meta = policy.meta
    means = mean_errors(results)
    first: Episode = dataset[results[0].index]
    known = [result.index for result in results if result.index in known]
    root = ", ".join(dict.fromkeys(_root_of(dataset[result.index]) for result in results))
    checkpoint = str(meta.get("checkpoint_path", meta.get("checkpoint_id", "unknown")))
    steps = sum(len(result.times) for result in results)
    document = {
        "format": FORMAT,
        "policy": without_recordings(meta),
        "dataset": root,
        "trained_on": known,
        "mask": mask,
        "error": error,
        "steps": steps,
        "mean_absolute_error": means,
        "episodes": [_entry(result) for result in results],
    }
    origin = {
        "dataset": root,
        "recorded from": str(first.static.get("source.file", "this project's recorder")),
        "policy": str(meta.get("type", "unknown")),
        "checkpoint": checkpoint,
        "trained on": dataset_name(meta) or "unknown",
    }
    page = render_page(
        results,
        means,
        task=str(first.static.get("task", "Recorded episodes")),
        subtitle=[
            f"policy {meta.get('type', 'unknown')}, checkpoint {checkpoint}",
            f"dataset {root.rstrip('/').rpartition('/')[2] or root}",
            f"{len(results)} episodes" + (f" of mask.{mask}" if mask else ""),
            f"{steps} steps",
        ],
        origin=origin,
        note=_note(known, len(results), meta),
        error=error,
    )
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / HTML, page)
    replace_text(out / JSON, json.dumps(document, indent=1, default=str) + "\n")


def _root_of(episode: "Episode") -> str:
    """The dataset's directory, two levels above the episode's."""
    above = str(episode.meta.get("path", "unknown")).rsplit("/", 2)[:-2]
    return above[0] if above else "."


def _entry(result: "Comparison") -> dict[str, Any]:
    curves = {
        name: {
            "pose": getattr(result, name).pose.round(6).tolist(),
            "grip": getattr(result, name).grip.round(6).tolist(),
        }
        for name in ("recorded", "served", "present")
    }
    return {
        "index": result.index,
        "name": result.name,
        "mean_absolute_error": mean_errors([result]),
        "inference_ms": [round(1e3 * seconds, 3) for seconds in result.latencies],
        "asked_s": result.asked,
        "times_s": result.times.round(6).tolist(),
        **curves,
    }


def _ranges(indices: list[int]) -> str:
    whole = indices == list(range(indices[0], indices[-1] + 1))
    return f"{indices[0]} to {indices[-1]}" if whole else ", ".join(map(str, indices))
