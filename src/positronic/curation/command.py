"""Program ``positronic-curate``: measure recordings, and find those that stand out."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import configuronic as cfn

from foundation import storage
from foundation.console import say_made
from foundation.errors import UsageError
from foundation.text import printable
from positronic.cfg import ds
from positronic.cfg.components import DATASET


@cfn.config()
def score(
    dataset: Annotated[Any, DATASET], output: str | None = None, workers: int | None = None
) -> None:
    """Measure each recording: motion, commands against their effect, gaps, cameras.

    Prints a line for each episode, and writes all measures as JSON where --output says. What was
    measured before comes from the cache, as long as the recording is the same.

    Example:
        positronic-curate score --dataset=RAW --output=scores.json

    Args:
        dataset: The raw episodes: a path, local or in S3, or a config.
        output: File for the measures of all episodes, local or s3://bucket/key.
        workers: Processes that measure; by default one per processor.
    """
    from positronic.curation.scores import as_json

    scores = _scores(dataset, workers)
    for each in scores:
        v = each.values
        line = each.error or f"{v['duration_s']:.1f} s, {len(v)} measures"
        print(f"{_name(each.source)}: {line}")
    if output is not None:
        text = json.dumps([as_json(each) for each in scores], indent=1) + "\n"
        storage.write_bytes(output, text.encode())
        say_made("measures", storage.join(output))


@cfn.config()
def suggest(
    dataset: Annotated[Any, DATASET],
    first: int = 20,
    drop: bool = False,
    workers: int | None = None,
) -> int:
    """Rank recordings by how much they stand out from the others, with reasons in words.

    A recording stands out if one of its measures is far from the median of all, or if it failed,
    or moves exactly as another one. Whether it is bad is yours to say: look at it first.

    Example:
        positronic-curate suggest --dataset=RAW

    Args:
        dataset: The raw episodes: a path, local or in S3, or a config.
        first: The most that are listed.
        drop: Drop those that stand out, by an edit log with the reason; the recordings stay, and
            LocalDataset.undrop takes one back.
        workers: Processes that measure; by default one per processor.
    """
    from positronic.curation.outliers import outliers
    from positronic.dataset import LocalDataset

    if drop and not (isinstance(dataset, str) and Path(dataset).expanduser().is_dir()):
        raise UsageError("--drop writes edit logs beside the recordings: give a local directory")
    ranked = outliers(_scores(dataset, workers))
    found = [outlier for outlier in ranked if outlier.stands_out]
    for outlier in found[:first]:
        print(
            f"{outlier.score:5.1f}  {_name(outlier.scores.source)}: {printable(outlier.why, 400)}"
        )
    listed = f", {first} of them listed" if len(found) > first else ""
    print(f"{len(found)} of {len(ranked)} episodes stand out{listed}")
    if drop and found:
        recordings = LocalDataset(dataset)
        known = {episode.uid for episode in recordings}
        dropped = [o for o in found if o.scores.uid in known]
        for outlier in dropped:
            recordings.drop(outlier.scores.uid, printable(outlier.why, 200))
        print(f"dropped {len(dropped)} of them", file=sys.stderr)
        for outlier in found:
            if outlier not in dropped:
                source = outlier.scores.source
                print(f"not dropped, since it cannot be read: {source}", file=sys.stderr)
    return 0


def _scores(dataset: Any, workers: int | None) -> Any:
    from positronic.curation.scores import score_dataset

    if workers is not None and workers < 0:
        raise UsageError(f"--workers={workers}: expected 0 (no worker processes) or more")
    opened = ds.opened(dataset)
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    # A process takes longer to start than a few episodes to be measured.
    return score_dataset(opened, count if len(opened) > 4 * count else 0)


def _name(source: str) -> str:
    """The last two parts of a path, which are block and number of a recording."""
    return printable("/".join(source.rstrip("/").rsplit("/", 2)[-2:]), 200)


def main() -> NoReturn:
    """Run ``positronic-curate``."""
    from positronic import cli

    cli.run({"score": score, "suggest": suggest}, "positronic-curate")
