"""Command-line flags shared by the commands of ``positronic-inference``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foundation.errors import UsageError
from positronic.cfg.components import DRIVER, PLAYER
from positronic.cli.values import names

if TYPE_CHECKING:
    from positronic.inference.setting import Setting

# Demonstrations are recorded from seed 0 upwards; policies are evaluated on other seeds.
DEFAULT_SEED = 100_000
CAMERAS = ("image.wrist", "image.exterior")


def make_setting(
    driver: Any,
    player: Any,
    env: str,
    cameras: Any,
    image_size: Any,
    charge_inference_time: bool,
    inference_delay: Any,
) -> "Setting":
    """Create the rollout settings from the flags.

    Raises:
        UsageError: a value is invalid; the message says what was expected.
    """
    DRIVER.require(driver, "driver")
    PLAYER.require(player, "player")
    from positronic import simulator
    from positronic.inference.setting import Setting, is_gym_id

    return Setting(
        env=env if is_gym_id(env) else simulator.env_id(env),
        simulation_time=driver.simulation_time,
        task=driver.task,
        cameras=names(cameras),
        image_size=read_size(image_size),
        player=player,
        charge_inference_time=charge_inference_time,
        delays=read_delays(inference_delay),
    )


def read_size(size: Any) -> tuple[int, int]:
    """Parse ``--image_size``: height and width, or one number for both."""
    values = (size, size) if isinstance(size, int) else size
    if isinstance(values, Sequence) and len(values) == 2 and all(type(v) is int for v in values):
        return values[0], values[1]
    raise UsageError(f"--image_size={size}: expected HEIGHT,WIDTH such as 240,320")


def read_delays(value: Any) -> tuple[float, ...]:
    """Parse ``--inference_delay``: None, a number of seconds, or a list of distinct ones."""
    if value is None:
        return ()
    listed = list(value) if isinstance(value, list | tuple) else [value]
    right = [type(x) in (int, float) and 0 <= x < float("inf") for x in listed]
    if not listed or not all(right) or len(set(listed)) < len(listed):
        raise UsageError(
            f"--inference_delay={value}: expected seconds such as 0.2, or a list of distinct ones"
            " such as [0,0.1,0.2,0.4]"
        )
    return tuple(float(x) for x in listed)
