"""Public Positronic datasets (PhAIL, simulation) by name, read from S3 without an account.

Files are fetched when they are read, and kept in the cache. ``path`` may be a mirror or a local
copy, and the profile ``PUBLIC`` may be redefined in ``~/.config/positronic/profiles.toml``.
"""

from typing import Any

import configuronic as cfn

from positronic.cfg.ds import declared, opened

__all__ = ["phail", "sim_pick_place", "sim_stack_cubes"]

BUCKET = "s3://PUBLIC@positronic-public/datasets"


@cfn.config(path=f"{BUCKET}/phail/")
def phail(path: str, grip_open: float | None = None) -> Any:
    """Teleoperated DROID recordings: 352 episodes, 12 GB.

    Args:
        path: Location of the dataset.
        grip_open: Value of the open grip, 1 or 0, for recordings that do not state it.
    """
    return _public(path, grip_open)


@cfn.config(path=f"{BUCKET}/sim-stack-cubes/")
def sim_stack_cubes(path: str, grip_open: float | None = None) -> Any:
    """Cubes stacked in simulation: 317 episodes, 499 MB.

    Args:
        path: Location of the dataset.
        grip_open: Value of the open grip, 1 or 0, for recordings that do not state it.
    """
    return _public(path, grip_open)


@cfn.config(path=f"{BUCKET}/sim-pick-place/")
def sim_pick_place(path: str, grip_open: float | None = None) -> Any:
    """Objects picked and placed in simulation: 214 episodes, 1.3 GB.

    Args:
        path: Location of the dataset.
        grip_open: Value of the open grip, 1 or 0, for recordings that do not state it.
    """
    return _public(path, grip_open)


def _public(path: str, grip_open: float | None) -> Any:
    # Later versions of a dataset are stored below the first one, but are not part of it.
    return declared(opened(path, nested=False), grip_open)
