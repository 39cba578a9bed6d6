"""Registration of the environments at Gymnasium, and their short names."""

from typing import Any

import gymnasium

from foundation.errors import UsageError
from foundation.text import did_you_mean

EPISODE_STEPS = 300
"""Steps after which an episode is truncated: 20 s at 15 Hz."""

ENVIRONMENTS = {
    "stack_cubes": "positronic/StackCubes-v0",
    "pick_place": "positronic/PickPlace-v0",
}
"""Gymnasium ids of the environments by their short names."""

for _task, _env_id in ENVIRONMENTS.items():
    gymnasium.register(
        id=_env_id,
        entry_point="positronic.simulator.env:PandaEnv",
        max_episode_steps=EPISODE_STEPS,
        kwargs={"task": _task},
    )


def env_id(name: str) -> str:
    """Return the Gymnasium id of a short name (``stack_cubes``, ``.stack_cubes``) or of an id.

    Raises:
        UsageError: unknown environment; the message suggests the closest name.
    """
    if name in ENVIRONMENTS.values():
        return name
    # A dot leads the short names of codecs and policies.
    if (short := name.removeprefix(".")) in ENVIRONMENTS:
        return ENVIRONMENTS[short]
    known = [*ENVIRONMENTS, *ENVIRONMENTS.values()]
    raise UsageError(
        f"unknown environment {name!r}{did_you_mean(name, known)} (known:"
        f" {', '.join(ENVIRONMENTS)})"
    )


def make(name: str, **kwargs: Any) -> gymnasium.Env[dict[str, Any], Any]:
    """Open an environment by its short name or Gymnasium id.

    Args:
        name: ``stack_cubes``, ``pick_place``, or their Gymnasium ids.
        kwargs: Passed to ``positronic.simulator.env.PandaEnv`` and ``gymnasium.make``.

    Raises:
        UsageError: unknown environment.
    """
    kwargs.setdefault("disable_env_checker", True)
    return gymnasium.make(env_id(name), **kwargs)
