"""Public Positronic datasets (PhAIL, simulation) by name, read from S3 without an account.

Nothing is fetched before it is read, and what was fetched stays in the cache. ``path`` may name a
mirror or a copy on a disk, and the profile ``PUBLIC`` be pointed elsewhere in
``~/.config/positronic/profiles.toml``.
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
        path: Where they lie.
        grip_open: What the grip counts when it is open, 1 or 0, where recordings do not say so.
    """
    return _public(path, grip_open)


@cfn.config(path=f"{BUCKET}/sim-stack-cubes/")
def sim_stack_cubes(path: str, grip_open: float | None = None) -> Any:
    """Cubes stacked in simulation: 317 episodes, 499 MB.

    Args:
        path: Where they lie.
        grip_open: What the grip counts when it is open, 1 or 0, where recordings do not say so.
    """
    return _public(path, grip_open)


@cfn.config(path=f"{BUCKET}/sim-pick-place/")
def sim_pick_place(path: str, grip_open: float | None = None) -> Any:
    """Objects picked and placed in simulation: 214 episodes, 1.3 GB.

    Args:
        path: Where they lie.
        grip_open: What the grip counts when it is open, 1 or 0, where recordings do not say so.
    """
    return _public(path, grip_open)


def _public(path: str, grip_open: float | None) -> Any:
    # Later versions of a dataset lie below the first one and are not part of it.
    return declared(opened(path, nested=False), grip_open)
