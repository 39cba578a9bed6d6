"""Read the files given by ``--config``, before slow imports."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.documents import Reader
from foundation.errors import UsageError

FLAGS = ("--config", "-c")
# A configuration with this key is not for Lightning's CLI: see getiaction.trainers.run_config.
WHOLE = "trainer_type"

_ANYTHING: Any = Any
_READER = Reader(error=UsageError, size=1 << 20, values=100_000, allow_nan=True)


def read_configs(argv: list[str]) -> list[dict[str, Any]]:
    """Read the files given by ``--config``, in order.

    Raises:
        UsageError: one is missing, not YAML, or not a mapping.
    """
    return [_read(path) for path in _paths(argv)]


def _paths(argv: list[str]) -> list[Path]:
    found: list[str] = []
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name in FLAGS:
            found.append(value or following)
    # Inline configurations instead of a path, which jsonargparse allows, are skipped.
    return [Path(path) for path in found if not path.lstrip().startswith("{")]


def _read(path: Path) -> dict[str, Any]:
    if "://" in str(path) or str(path).startswith(("s3:/", "http:/", "https:/")):
        return {}
    if path.is_dir():
        raise UsageError(f"the configuration {path} is a directory; expected a file")
    try:
        text = _READER.read(path)
    except FileNotFoundError:
        raise UsageError(f"there is no configuration file {path}") from None
    content = _READER.parse_yaml(text, _ANYTHING, f"the configuration {path}")
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"is a {type(content).__name__}"
        raise UsageError(f"the configuration {path} {what}; expected names and their values")
    return content


def native_config(
    command: str, configs: list[dict[str, Any]], argv: list[str]
) -> dict[str, Any] | None:
    """The configuration with ``trainer_type``, with overrides applied; None for any other.

    Raises:
        UsageError: it is used with another command than ``fit``, or an override is invalid.
    """
    if not any(WHOLE in config for config in configs):
        return None
    if command != "fit":
        raise UsageError(f"a configuration with {WHOLE!r} is for fit, not {command}")
    whole: dict[str, Any] = {}
    for config in configs:
        _merge(whole, config)
    for name, value in _overrides(argv[1:]):
        *parents, last = name.split(".")
        part = whole
        for parent in parents:
            part = part.setdefault(parent, {})
            if not isinstance(part, dict):
                raise UsageError(f"--{name} sets a key of {parent!r}, which is not a mapping")
        part[last] = _READER.parse_yaml(value, _ANYTHING, f"the value of --{name}")
    return whole


def _overrides(words: list[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("-"):
            raise UsageError(f"unexpected {name!r}; expected --name=value")
        if not equals:
            if not rest:
                raise UsageError(f"{name} has no value; expected {name}=value")
            value = rest.pop(0)
        if name not in FLAGS:
            found.append((name.lstrip("-"), value))
    return found


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
