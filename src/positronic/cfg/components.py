"""Kinds of components that commands take, for the annotations of their parameters."""

import os
from typing import Any

from foundation import storage
from foundation.errors import UsageError
from positronic.cli.components import Component

__all__ = ["CODEC", "DATASET", "DRIVER", "PLAYER", "POLICY"]

SCHEMES = ("ws://", "wss://", "http://", "https://")
SESSION = "/api/v1/session"


def _is_policy(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("new_session", "close"))


def _is_codec(value: Any) -> bool:
    from positronic.codec import Codec

    return isinstance(value, Codec)


def _is_dataset(value: Any) -> bool:
    from positronic.dataset import Dataset

    return isinstance(value, str | Dataset)


def _is_driver(value: Any) -> bool:
    from positronic.cfg.driver import Timed

    return isinstance(value, Timed)


def _is_path(text: str) -> bool:
    """Return whether text is meant as a directory, not as a mistyped name."""
    return text.startswith("~") or "/" in text or os.path.isdir(text)


def _policy(text: str) -> Any:
    """Return the policy on the server of a URL, or that of a directory of checkpoints."""
    from positronic.cfg import policy

    if text.startswith(SCHEMES):
        url, session, checkpoint = text.partition(SESSION)
        if session and checkpoint.strip("/"):
            return policy.remote.override(url=url, checkpoint=checkpoint.strip("/"))
        return policy.remote.override(url=url)
    if not _is_path(text):
        return None
    place = text.rstrip("/")
    if not storage.is_remote(place):
        # `last` is a link to a step.
        place = str(storage.local(place).resolve())
        if not os.path.isdir(place):
            raise UsageError(
                f"--policy={text}: there is no such directory; give that of a training run,"
                " OUTPUT_DIR/RUN_NAME, or one of its checkpoints"
            )
    place = place.removesuffix("/pretrained_model")
    above, _, step = place.rpartition("/")
    if step.isdecimal() and above.endswith("checkpoints"):
        return policy.act_absolute.override(checkpoints_dir=above, checkpoint=step)
    return policy.act_absolute.override(checkpoints_dir=place)


def _no_dots(text: str) -> str | None:
    """Return the path of a dataset; None for a mistyped name such as ``.locl``."""
    return None if text.startswith(".") and not _is_path(text) else text


CODEC = Component("codec", ("positronic.vendors.lerobot.codecs",), _is_codec)
DATASET = Component(
    "dataset",
    tuple(f"positronic.cfg.ds{name}" for name in ("", ".split", ".phail")),
    _is_dataset,
    _no_dots,
    "a path",
    "local",
)
DRIVER = Component("driver", ("positronic.cfg.driver",), _is_driver)
PLAYER = Component("player", ("positronic.cfg.player",), callable)
POLICY = Component(
    "policy",
    ("positronic.cfg.policy",),
    _is_policy,
    _policy,
    "ws://HOST:PORT, the directory of a training run",
    "remote",
    "placeholder",
    bare=False,
)
