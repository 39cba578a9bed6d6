"""Digests of the recordings that a policy was trained on, which travel with the policy.

A policy's meta has them as ``trained_on``: ``{"dataset": name, "recordings": digests}``, with
``dropped``, a number, if edit logs left recordings out.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "DIGITS",
    "DROPPED",
    "RECORDINGS",
    "TRAINED_ON",
    "dataset_name",
    "digests",
    "dropped",
    "is_among",
    "without_recordings",
]

TRAINED_ON, RECORDINGS, DROPPED = "trained_on", "recordings", "dropped"
# Hex digits of each: another recording is taken for one of 10 000 once in 400 000 times.
DIGITS = 8


def digests(uids: Iterable[str]) -> str:
    """Return the digests of recordings, one after the other."""
    return "".join(sorted(_digest(uid) for uid in uids))


def is_among(uid: str, meta: Mapping[str, Any]) -> bool:
    """Return whether a policy with this meta was trained on the recording, as far as it says."""
    found = _said(meta).get(RECORDINGS)
    if not isinstance(found, str):
        return False
    mine = _digest(uid)
    return any(found.startswith(mine, at) for at in range(0, len(found), DIGITS))


def dataset_name(meta: Mapping[str, Any]) -> str | None:
    """Return the name of the dataset that a policy was trained on, if its meta says it."""
    name = _said(meta).get("dataset")
    return name if isinstance(name, str) and name else None


def dropped(meta: Mapping[str, Any]) -> int:
    """Return how many recordings of that dataset were dropped by edits; 0 if the meta is silent."""
    count = _said(meta).get(DROPPED)
    return count if type(count) is int and count > 0 else 0


def without_recordings(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy's meta without the digests, to be kept with each rollout or shown."""
    said = {key: value for key, value in _said(meta).items() if key != RECORDINGS}
    return (
        {**meta, TRAINED_ON: said} if said else {k: v for k, v in meta.items() if k != TRAINED_ON}
    )


def _said(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    said = meta.get(TRAINED_ON)
    return said if isinstance(said, Mapping) else {}


def _digest(uid: str) -> str:
    return hashlib.sha256(uid.encode("utf-8", "backslashreplace")).hexdigest()[:DIGITS]
