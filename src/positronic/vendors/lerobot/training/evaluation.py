"""Evaluation gym of a training run: the simulator through a codec, or a Gymnasium id."""

from typing import Any

from foundation.errors import UsageError
from positronic import simulator
from positronic.codec import Contract


def gym(name: str, contract: Contract | None) -> Any:
    """Return what `getiaction`'s data module rolls out in.

    Args:
        name: One of our environments, seen through the dataset's codec and at its rate; or another
            package's Gymnasium id, whose observations are the dataset's features already.
        contract: The dataset's.

    Raises:
        UsageError: there is no such environment, or no contract to see ours through.
    """
    if "/" in name and not name.startswith("positronic/"):
        return name
    name = simulator.env_id(name)
    if contract is None:
        raise UsageError(
            f"--eval_env={name} needs a dataset with a contract, as `positronic-to-lerobot "
            "convert` writes it, or its --codec"
        )
    from positronic.vendors.lerobot.gym import CodecGym

    return CodecGym(name, contract.make_codec(), control_fps=round(contract.fps))
