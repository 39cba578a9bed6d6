"""Reads a dataset with public Positronic and prints what it sees; run by its own Python.

    python recordings.py ROOT OUT.npz

OUT.npz gets, for every episode ``i`` and signal ``s``, timestamps and values: ``i/s/all/...`` and
those of each of the ``questions``. Statics and meta are printed as JSON. Imports nothing of this
project.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FRACTIONS = (0.0, 0.123, 0.5, 0.987, 1.0)


def questions(start: int, last: int) -> dict[str, Any]:
    """Keys for ``signal.time[...]`` that both readers are asked."""
    span = last - start
    third = start + span // 3 + 1
    return {
        "times": [start + int(span * f) for f in FRACTIONS],
        "steps": slice(start, last + 1, 10**9 // 15),
        "window": slice(third, third + span // 3),
        "early": slice(0, start + span // 5),
    }


class Before:
    """Release 0.2.1: numbers are times."""

    def bounds(self, episode: Any) -> tuple[int, int]:
        """First and last time."""
        return int(episode.start_ts), int(episode.last_ts)

    def key(self, question: Any) -> Any:
        """What it is asked with."""
        return question

    def times(self, view: Any) -> list[int]:
        """Timestamps."""
        return list(view.keys())


class Named:
    """Release 0.4.1: times have names, and its converter takes those of one."""

    def __init__(self, episode: Any) -> None:
        from eval_vocabulary.timeline import recording_timeline  # type: ignore[import-not-found]

        self.line = recording_timeline(episode.timelines)

    def bounds(self, episode: Any) -> tuple[int, int]:
        """First and last time."""
        found = episode.bounds(self.line)
        return int(found.start), int(found.finish)

    def key(self, question: Any) -> Any:
        """What it is asked with."""
        if isinstance(question, slice):
            return slice(*map(self._time, (question.start, question.stop, question.step)))
        return [self._time(time) for time in question]

    def _time(self, number: Any) -> Any:
        from positronic.dataset.time import Time  # type: ignore[import-not-found]

        return None if number is None else Time(**{self.line: int(number)})

    def times(self, view: Any) -> list[int]:
        """Timestamps."""
        return list(view.timestamps(self.line))


def main(root: str, out: str) -> None:
    """Read everything under ``root``."""
    from positronic.dataset.local_dataset import (  # type: ignore[import-not-found]
        load_all_datasets,
    )

    arrays: dict[str, Any] = {}
    episodes = []
    for i, episode in enumerate(load_all_datasets(Path(root))):
        release: Any = Named(episode) if hasattr(episode, "timelines") else Before()
        start, last = release.bounds(episode)
        episodes.append(
            {
                "static": episode.static,
                "meta": {k: v for k, v in episode.meta.items() if k != "size_mb"},
                "start": start,
                "last": last,
                "signals": sorted(episode.signals),
            }
        )
        for name, signal in episode.signals.items():
            asked = questions(start, last).items()
            views = {"all": signal, **{key: signal.time[release.key(q)] for key, q in asked}}
            for key, view in views.items():
                arrays[f"{i}/{name}/{key}/ts"] = np.asarray(release.times(view), dtype=np.int64)
                arrays[f"{i}/{name}/{key}/values"] = np.asarray(list(view.values()))
    np.savez(out, **arrays)
    print(json.dumps(episodes))


if __name__ == "__main__":
    main(*sys.argv[1:])
