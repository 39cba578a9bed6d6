"""Rollout settings: environment, cameras, time limit, player and inference delays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from positronic import simulator
from positronic.policy import ChunkPlayer, Delay, MakePlayer, fixed, measured, no_delay

__all__ = ["Rollout", "Setting"]

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Rollout:
    """One rollout of many: ``index`` counts them, ``delay`` is what each inference is charged."""

    index: int
    seed: int
    delay: float | None = None


@dataclass(frozen=True)
class Setting:
    """The environment, the clock and the player; worker processes get a copy.

    ``charge_inference_time`` lets simulated time go on for as long as an inference took;
    ``delays`` are seconds to charge instead.
    """

    env: str
    simulation_time: float
    task: str | None = None
    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] = (240, 320)
    player: MakePlayer = ChunkPlayer
    charge_inference_time: bool = False
    delays: tuple[float, ...] = ()

    def open_env(self) -> "gymnasium.Env[Any, Any]":
        """Open the environment, whose own time limit is lifted: the driver's counts."""
        return simulator.make(
            self.env, cameras=self.cameras, image_size=self.image_size, max_episode_steps=-1
        )

    def charged(self, delay: float | None) -> Delay:
        """Return the rule by which an inference is charged in a rollout with ``delay``."""
        if delay is not None:
            return fixed(delay)
        return measured if self.charge_inference_time else no_delay

    def plan(self, seed: int, count: int) -> list[Rollout]:
        """Return ``count`` rollouts from ``seed`` upwards, as often as there are delays."""
        delays: Sequence[float | None] = self.delays or (None,)
        runs = [(delay, seed + i) for delay in delays for i in range(count)]
        return [Rollout(index, number, delay) for index, (delay, number) in enumerate(runs)]

    @property
    def player_name(self) -> str:
        """The player for people: its class or function and what it was given."""
        maker: Any = self.player
        if not isinstance(maker, partial):
            return _name(maker)
        given = [f"{key}={value}" for key, value in maker.keywords.items() if value is not None]
        return _name(maker.func) + (f" ({', '.join(given)})" if given else "")


def _name(maker: Any) -> str:
    name = getattr(maker, "__name__", type(maker).__name__)
    return "synchronous" if name == "ChunkPlayer" else name.removesuffix("Player").lower()
