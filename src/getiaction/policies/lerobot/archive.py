"""A policy as plain data, for checkpoints that load with ``weights_only=True``."""

import json
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.utils.constants import (
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)
from safetensors.torch import save_file

from getiaction.errors import GetiactionError
from getiaction.policies.lerobot.making import load_processors
from getiaction.policies.lerobot.registry import config_class

# Where it lies in a Lightning checkpoint.
ENTRY = "getiaction"

type Plain = dict[str, Any]


def encode(value: Any, kind: Any) -> Plain | None:
    """Encode one of LeRobot's configs with the name of its choice; None stays None."""
    # Through JSON, so that nothing but plain types is left.
    encoded: Plain | None = json.loads(json.dumps(draccus.encode(value, kind))) if value else None
    return encoded


def decode_config(plain: Plain) -> PreTrainedConfig:
    """Rebuild a policy's config; on the CPU, wherever it was before."""
    fields = dict(plain) | {"device": "cpu"}
    config: PreTrainedConfig = draccus.decode(config_class(fields.pop("type")), fields)
    return config


def decode_optimizer(plain: Plain) -> OptimizerConfig:
    """Rebuild the optimizer's config."""
    return _decode(OptimizerConfig, plain)


def decode_scheduler(plain: Plain | None) -> LRSchedulerConfig | None:
    """Rebuild the schedule's config, if there is one."""
    return None if plain is None else _decode(LRSchedulerConfig, plain)


def pack_processor(processor: Any) -> Plain:
    """Return a processor's steps and their tensors, the statistics among them."""
    state = {
        step: {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        for step, tensors in processor.state_dict().items()
    }
    return {"config": json.loads(json.dumps(processor.get_config())), "state": state}


def unpack_processors(config: PreTrainedConfig, before: Plain, after: Plain) -> tuple[Any, Any]:
    """Rebuild the preprocessor and the postprocessor.

    They go through LeRobot's own files: its loader also joins steps of the one to steps of the
    other, each policy's in its own way.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, plain in (
            (POLICY_PREPROCESSOR_DEFAULT_NAME, before),
            (POLICY_POSTPROCESSOR_DEFAULT_NAME, after),
        ):
            (folder / f"{file}.json").write_text(json.dumps(plain["config"]))
            for step, tensors in plain["state"].items():
                save_file(tensors, folder / f"{step}.safetensors")
        return load_processors(config, folder)


@contextmanager
def reading(origin: Any) -> Iterator[None]:
    """Say in a line what is wrong where a Lightning checkpoint cannot be read.

    Raises:
        GetiactionError: there is no file, or it is damaged, or no checkpoint at all.
    """
    try:
        yield
    except FileNotFoundError:
        raise GetiactionError(f"there is no checkpoint {origin}") from None
    # What torch raises depends on where the file is cut and on the bytes that it begins with.
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise GetiactionError(
            f"{origin} cannot be read as a Lightning checkpoint, it is damaged or something else: "
            f"{reason}"
        ) from error


def require_entry(checkpoint: Any, origin: Any) -> Plain:
    """Return what :class:`LeRobotPolicy` put into a Lightning checkpoint.

    Raises:
        GetiactionError: it is a checkpoint of something else.
    """
    if not isinstance(checkpoint, dict):
        raise GetiactionError(f"{origin} is no checkpoint: it holds a {type(checkpoint).__name__}")
    if ENTRY not in checkpoint:
        raise GetiactionError(
            f"{origin} was not written by a LeRobotPolicy: it has no {ENTRY!r}; it has: "
            f"{', '.join(checkpoint)}"
        )
    entry: Plain = checkpoint[ENTRY]
    return entry


def require_same_network(
    saved: Plain, config: PreTrainedConfig, weights: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Refuse weights that do not fit the network made from ``config``.

    Args:
        saved: The config in the checkpoint, encoded.
        config: The one at hand.
        weights: The checkpoint's ``state_dict``.
        own: The module's.

    Raises:
        GetiactionError: naming the fields in which the configs differ.
    """
    if {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in own.items()}:
        return
    now = encode(config, PreTrainedConfig) or {}
    different = [
        f"{name} was {saved.get(name)} and is {now.get(name)}"
        for name in {**saved, **now}
        if saved.get(name) != now.get(name) and name != "device"
    ]
    raise GetiactionError(
        "the checkpoint holds another network than the policy given: "
        f"{'; '.join(different) or 'its weights have other shapes'}; give the policy the same "
        "settings, or load it by load_from_checkpoint"
    )


def _decode(kind: Any, plain: Plain) -> Any:
    fields = dict(plain)
    return draccus.decode(kind.get_choice_class(fields.pop("type")), fields)
