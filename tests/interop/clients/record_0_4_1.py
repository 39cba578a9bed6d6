"""Records two episodes with public Positronic 0.4.1; run by its own Python.

    python record_0_4_1.py ROOT

Imports nothing of this project.
"""

import sys
from pathlib import Path

import numpy as np

MS = 10**6


def main(root: str) -> None:
    """Record as on a robot, and as in code that knows of one time only."""
    from positronic.dataset.local_dataset import (  # type: ignore[import-not-found]
        LocalDatasetWriter,
    )
    from positronic.dataset.time import Time  # type: ignore[import-not-found]

    rng = np.random.default_rng(0)
    picture = np.zeros((48, 64, 3), np.uint8)
    with LocalDatasetWriter(Path(root)) as writer:
        with writer.new_episode() as episode:
            for i in range(300):
                world, wall = 4 * MS + i * 2 * MS, 1_700_000_000_000 * MS + i * 3 * MS
                made = {"emitted.world": world, "emitted.wall": wall}
                taken = {"harness.world": world + 2 * MS, "harness.wall": wall + 5 * MS}
                got = {"received.world": world + MS, "received.wall": wall + MS}
                observed, commanded = Time(**made, **got, **taken), Time(**made, **taken)
                episode.append("robot_state.ee_pose", rng.normal(size=7), observed)
                episode.append("grip", float(rng.uniform()), observed)
                if i % 20 == 0:
                    picture[:] = i // 2
                    episode.append("image.wrist", picture, observed)
                if i % 30 == 7:
                    episode.append("robot_command.pose", rng.normal(size=7), commanded)
                    episode.append("target_grip", float(rng.uniform()), commanded)
            episode.set_static("task", "stack")
        with writer.new_episode() as episode:
            for i in range(20):
                episode.append("q", np.full(7, i, np.float32), Time(recorded=i * 50 * MS))


if __name__ == "__main__":
    main(*sys.argv[1:])
