"""Reads a dataset with public Positronic 0.2.1 and prints what it sees; run by its own Python.

    python public_reader.py ROOT OUT.npz

OUT.npz gets, for every episode ``i`` and signal ``s``: ``i/s/ts``, ``i/s/values`` and samples at
``TIMES`` fractions of the episode, on a stepped window, and in a plain window. Statics and meta
are printed as JSON. Imports nothing of this project.
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


def main(root: str, out: str) -> None:
    """Read everything under ``root``."""
    from positronic.dataset.local_dataset import (  # type: ignore[import-not-found]
        load_all_datasets,
    )

    arrays: dict[str, Any] = {}
    episodes = []
    for i, episode in enumerate(load_all_datasets(Path(root))):
        meta = {k: v for k, v in episode.meta.items() if k != "size_mb"}
        start, last = int(episode.start_ts), int(episode.last_ts)
        info = {"static": episode.static, "meta": meta, "start": start, "last": last}
        info["duration"] = int(episode.duration_ns)
        info["signals"] = sorted(episode.signals)
        episodes.append(info)
        for name, signal in episode.signals.items():
            views = {"all": signal}
            views |= {key: signal.time[q] for key, q in questions(start, last).items()}
            for key, view in views.items():
                arrays[f"{i}/{name}/{key}/ts"] = np.asarray(list(view.keys()), dtype=np.int64)
                arrays[f"{i}/{name}/{key}/values"] = np.asarray(list(view.values()))
    np.savez(out, **arrays)
    print(json.dumps(episodes))


if __name__ == "__main__":
    main(*sys.argv[1:])
