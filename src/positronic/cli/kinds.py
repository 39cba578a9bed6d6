"""Kinds of directories that commands take: what a wrong one holds, and which one was meant."""

import itertools
import re
from collections.abc import Iterator

from foundation import storage
from foundation.errors import FoundationError

RECORDINGS, DATASET, RUN, CHECKPOINT, ROLLOUTS = KINDS = (
    "raw episodes",
    "a LeRobot dataset",
    "a training run",
    "a checkpoint",
    "rollouts",
)
# As LeRobot's programs take what is on the Hub.
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SERVER = "python -m positronic.vendors.lerobot.server --checkpoints_dir={}"
# The command that takes a directory of a kind.
TAKEN_BY = {
    RECORDINGS: "positronic-to-lerobot convert --dataset.dataset={}",
    DATASET: "python -m positronic.vendors.lerobot.train --dataset_root={}",
    RUN: _SERVER,
    CHECKPOINT: _SERVER,
    ROLLOUTS: "positronic-inference compare --runs=[{},OTHER]",
}
# Directories looked into per level, of which each is a request in S3; and those that are named.
MOST, SHOWN = 30, 3


def found_instead(place: str, wanted: str) -> str:
    """Return the end of an error message: what is at ``place`` instead, or near it.

    Args:
        place: The directory or S3 address that was given.
        wanted: The kind that the command takes.
    """
    try:
        place = str(place).rstrip("/") or "/"
        if _HUB_NAME.fullmatch(place) and not storage.exists(place):
            kind = "" if wanted in (RUN, CHECKPOINT) else "datasets/"
            return f"; if it is a repository on the Hub, write hf://{kind}{place}"
        here = kinds_of(place)
        if wanted in here:
            return ""
        if here:
            return f"; it holds {here[0]}, for `{TAKEN_BY[here[0]].format(place)}`"
        parent = place.rpartition("/")[0]
        if parent not in ("", "s3:/") and wanted in kinds_of(parent):
            return f"; did you mean {parent}?"
        below = list(_below(place, wanted, depth=1 if storage.is_remote(place) else 2))
    except FoundationError:  # it must not replace the error that is being reported
        return ""
    if len(below) < 2:
        return f"; did you mean {below[0]}?" if below else ""
    more = ", ..." if below[SHOWN:] else ""
    return f"; did you mean one of {', '.join(below[:SHOWN])}{more}?"


def kinds_of(place: str) -> list[str]:
    """Return the kinds that a directory is of, by the names in it, the likeliest first."""
    names = storage.children(place)
    steps = [name for name in names if _is_step(name)]
    if "checkpoints" in names:
        steps += [n for n in storage.children(storage.join(place, "checkpoints")) if _is_step(n)]
    blocks = [name for name in steps if len(name) == 12]
    is_kind = {
        ROLLOUTS: "results.json" in names,
        DATASET: "meta" in names and "info.json" in storage.children(storage.join(place, "meta")),
        RUN: len(steps) > len(blocks),
        CHECKPOINT: "pretrained_model" in names or {"config.json", "model.safetensors"} <= {*names},
        RECORDINGS: bool(blocks),
    }
    return [kind for kind, holds in is_kind.items() if holds]


def _below(place: str, wanted: str, depth: int) -> Iterator[str]:
    """Yield the directories of a kind below ``place``, down to ``depth``."""
    names = [n for n in storage.children(place) if not n.startswith(".") and not _is_step(n)]
    for name in names[:MOST]:
        inner = f"{place.rstrip('/')}/{name}"
        if wanted in kinds_of(inner):
            yield inner
        elif depth > 1:
            yield from _below(inner, wanted, depth - 1)


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit()


def unused(place: str) -> str:
    """Return ``place``, with a number if something is there; S3 is not asked."""
    if storage.is_remote(place):
        return place
    names = itertools.chain([place], (f"{place}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not storage.local(name).exists())
