"""Kinds of components that commands take, for the annotations of their parameters."""

import os
from typing import Any

from positronic.cli.components import Component

__all__ = ["CODEC", "DATASET", "DRIVER", "PLAYER"]


def _is_codec(value: Any) -> bool:
    from positronic.codec import Codec

    return isinstance(value, Codec)


def _is_dataset(value: Any) -> bool:
    from positronic.dataset import Dataset

    return isinstance(value, str | Dataset)


def _is_driver(value: Any) -> bool:
    from positronic.cfg.driver import Timed

    return isinstance(value, Timed)


def is_path(text: str) -> bool:
    """Return whether text is meant as a directory, not as a mistyped name."""
    return text.startswith("~") or "/" in text or os.path.isdir(text)


def _no_dots(text: str) -> str | None:
    """Return the path of a dataset; None for a mistyped name such as ``.locl``."""
    return None if text.startswith(".") and not is_path(text) else text


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
