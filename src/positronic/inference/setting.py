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


def is_gym_id(env: str) -> bool:
    """Return whether ``env`` is an id of another package's: ``gym_pusht/PushT-v0``."""
    return ("/" in env or ":" in env) and not env.startswith("positronic/")


@dataclass(frozen=True)
class Rollout:
    """One rollout of a run; ``delay`` is the control time charged per inference."""

    index: int
    seed: int
    delay: float | None = None


@dataclass(frozen=True)
class Setting:
    """Settings of all rollouts of a run; worker processes get a copy.

    ``charge_inference_time`` advances simulated time by the duration of each inference;
    ``delays`` are fixed seconds to charge instead.
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
        """Open the environment without its own time limit; the driver's applies."""
        if is_gym_id(self.env):
            from positronic.inference.gym_world import GymWorld

            return GymWorld(self.env)
        return simulator.make(
            self.env, cameras=self.cameras, image_size=self.image_size, max_episode_steps=-1
        )

    def charged(self, delay: float | None) -> Delay:
        """Return the function that charges inferences in a rollout with ``delay``."""
        if delay is not None:
            return fixed(delay)
        return measured if self.charge_inference_time else no_delay

    def plan(self, seed: int, count: int) -> list[Rollout]:
        """Return ``count`` rollouts from ``seed`` upwards, for each delay."""
        delays: Sequence[float | None] = self.delays or (None,)
        runs = [(delay, seed + i) for delay in delays for i in range(count)]
        return [Rollout(index, number, delay) for index, (delay, number) in enumerate(runs)]

    @property
    def player_name(self) -> str:
        """Display name of the player: its class or function, and arguments."""
        maker: Any = self.player
        if not isinstance(maker, partial):
            return _name(maker)
        given = [f"{key}={value}" for key, value in maker.keywords.items() if value is not None]
        return _name(maker.func) + (f" ({', '.join(given)})" if given else "")


def _name(maker: Any) -> str:
    name = getattr(maker, "__name__", type(maker).__name__)
    return "synchronous" if name == "ChunkPlayer" else name.removesuffix("Player").lower()
