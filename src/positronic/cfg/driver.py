"""Rollout drivers by name for the command line: ``--driver.num_iterations=50``."""

from dataclasses import dataclass

import configuronic as cfn

from foundation.errors import UsageError

__all__ = ["Timed", "timed"]


@dataclass(frozen=True)
class Timed:
    """So many rollouts, each of so many seconds of simulated time at most."""

    num_iterations: int = 1
    simulation_time: float = 15.0
    show_gui: bool = False
    task: str | None = None


@cfn.config(num_iterations=1, simulation_time=15.0, show_gui=False, task=None)
def timed(num_iterations: int, simulation_time: float, show_gui: bool, task: str | None) -> Timed:
    """Play rollouts one after the other, by the clock of the simulation.

    Args:
        num_iterations: How many rollouts.
        simulation_time: Seconds of simulated time after which a rollout has failed.
        show_gui: Open a window with the camera images, where there is a display.
        task: What to tell the policy to do; the environment's own task if not given.
    """
    if num_iterations < 1:
        raise UsageError(f"--driver.num_iterations={num_iterations}: expected 1 or more")
    if not simulation_time > 0:
        raise UsageError(f"--driver.simulation_time={simulation_time}: expected more than 0 s")
    return Timed(num_iterations, float(simulation_time), show_gui, task)
