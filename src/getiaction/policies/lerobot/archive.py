"""Serialise a policy's configs and processors as data that loads with ``weights_only=True``."""

import json
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

from foundation.documents import inside, plain
from foundation.errors import FoundationError
from foundation.text import printable
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot.making import load_processors, steps_of
from getiaction.policies.lerobot.registry import config_class
from getiaction.policies.safety import READER, Packed

# Key of the entry in a Lightning checkpoint.
ENTRY = "getiaction"

type Plain = dict[str, Any]


def encode(value: Any, kind: Any) -> Plain | None:
    """Encode one of LeRobot's configs with its registered type name; None stays None."""
    encoded: Plain | None = plain(draccus.encode(value, kind)) if value else None
    return encoded


def decode_config(encoded: Plain) -> PreTrainedConfig:
    """Rebuild a policy's config, for the CPU and without its ``pretrained_path``."""
    fields = dict(encoded) | {"device": "cpu", "pretrained_path": None}
    config: PreTrainedConfig = draccus.decode(config_class(fields.pop("type")), fields)
    return config


def decode_optimizer(encoded: Plain) -> OptimizerConfig:
    """Rebuild the optimizer's config."""
    return _decode(OptimizerConfig, encoded)


def decode_scheduler(encoded: Plain | None) -> LRSchedulerConfig | None:
    """Rebuild the scheduler's config, if there is one."""
    return None if encoded is None else _decode(LRSchedulerConfig, encoded)


def pack_processor(processor: Any) -> Plain:
    """Return a processor's steps and their tensors, the statistics among them."""
    state = {
        step: {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        for step, tensors in processor.state_dict().items()
    }
    return {"config": plain(processor.get_config()), "state": state}


def unpack_processors(
    config: PreTrainedConfig, before: Plain, after: Plain, *, trusted: bool = False
) -> tuple[Any, Any]:
    """Rebuild preprocessor and postprocessor from an entry returned by :func:`require_entry`.

    They go through LeRobot's own files, because its loader also links steps of the one to steps of
    the other, which differs by policy.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, packed in (
            (POLICY_PREPROCESSOR_DEFAULT_NAME, before),
            (POLICY_POSTPROCESSOR_DEFAULT_NAME, after),
        ):
            (folder / f"{file}.json").write_text(json.dumps(packed["config"]))
            for step, tensors in packed["state"].items():
                save_file(tensors, inside(folder, f"{step}.safetensors"))
        return load_processors(config, folder, trusted=trusted, own=steps_of(config))


@contextmanager
def reading(origin: Any) -> Iterator[None]:
    """Context in which errors of reading a Lightning checkpoint become one line.

    Raises:
        GetiactionError: there is no file, or it is damaged or not a checkpoint.
    """
    if isinstance(origin, str | Path) and Path(origin).exists() and not Path(origin).is_file():
        # Reading a pipe would block for ever.
        raise GetiactionError(f"{origin} is not a regular file; expected a Lightning checkpoint")
    try:
        yield
    except FoundationError:
        raise
    except FileNotFoundError:
        raise GetiactionError(f"there is no checkpoint {origin}") from None
    # torch's error depends on where the file is cut and on its first bytes.
    except Exception as error:
        reason = printable(next(iter(str(error).splitlines()), "") or type(error).__name__)
        raise GetiactionError(
            f"{origin} cannot be read as a Lightning checkpoint, it is damaged or something else: "
            f"{reason}"
        ) from error


def require_entry(
    checkpoint: Any, origin: Any, *, config: PreTrainedConfig | None = None, trusted: bool = False
) -> Plain:
    """Return the entry of :class:`LeRobotPolicy` in a Lightning checkpoint, validated.

    Args:
        checkpoint: The object that torch loaded.
        origin: Its path, for messages.
        config: The user's own, if any: a policy of its type, with the steps that LeRobot makes for
            it, is allowed.
        trusted: Let it load models and code that it names, see :mod:`getiaction.policies.safety`.

    Raises:
        GetiactionError: it is not a checkpoint of a LeRobotPolicy, or loading it would be unsafe.
    """
    if not isinstance(checkpoint, dict):
        raise GetiactionError(
            f"{origin} is not a checkpoint: it holds a {type(checkpoint).__name__}"
        )
    if ENTRY not in checkpoint:
        raise GetiactionError(
            f"{origin} was not written by a LeRobotPolicy: it has no {ENTRY!r}; it has: "
            f"{printable(', '.join(map(str, checkpoint)))}"
        )
    entry: Plain = checkpoint[ENTRY]
    packed = READER.validate(entry, Packed, str(origin))
    asked = config is not None and packed.config.type == config.type
    packed.config.require_allowed(str(origin), trusted=trusted or asked)
    known = steps_of(config) if config is not None and asked else ()
    for name, processor in (("before", packed.preprocessor), ("after", packed.postprocessor)):
        processor.config.require_allowed(
            f"{origin}, processor {name} the policy", trusted=trusted, known=known
        )
    return entry


def require_same_network(
    saved: Plain, config: PreTrainedConfig, weights: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Refuse weights that do not fit the network made from ``config``.

    Args:
        saved: The config in the checkpoint, encoded.
        config: The module's config.
        weights: The checkpoint's ``state_dict``.
        own: The module's.

    Raises:
        GetiactionError: names the fields in which the configs differ.
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


def _decode(kind: Any, encoded: Plain) -> Any:
    fields = dict(encoded)
    name = fields.pop("type")
    if kind is PreTrainedConfig:
        config_class(name)
    return draccus.decode(kind.get_choice_class(name), fields)
