"""Instantiate objects from configuration: YAML files, dicts, dataclasses and pydantic models.

``{"class_path": ..., "init_args": {...}}`` names an object, as for LightningCLI; nested values of
the same form are instantiated first. The list ``init_args["args"]`` is positional.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from foundation.documents import Reader
from getiaction.errors import GetiactionError

__all__ = ["FromConfig", "instantiate_obj"]

CLASS_PATH = "class_path"
INIT_ARGS = "init_args"

_READER = Reader(
    error=GetiactionError,
    mend="a configuration is a mapping of names to values",
    size=1 << 20,
    values=100_000,
    allow_nan=True,
)


class FromConfig:
    """Mixin that instantiates a class from configuration.

    A configuration with both ``class_path`` and ``init_args`` names the class, which must be this
    one or a subclass; any other holds this class's own keyword arguments.
    """

    @classmethod
    def from_config(cls, config: Any, *, key: str | None = None) -> Self:
        """Make an instance from any of the forms below.

        Args:
            config: Path of a YAML file, mapping, dataclass instance or pydantic model.
            key: The part of the configuration to use; all of it unless given.

        Raises:
            GetiactionError: no such file, key or class, or arguments that the class refuses.
        """
        return cls.from_dict(as_dict(config), key=key)

    @classmethod
    def from_yaml(cls, path: str | Path, *, key: str | None = None) -> Self:
        """Make an instance from a YAML file."""
        return cls.from_dict(_read_yaml(Path(path)), key=key)

    @classmethod
    def from_dataclass(cls, config: Any, *, key: str | None = None) -> Self:
        """Make an instance from the fields of a dataclass instance."""
        return cls.from_config(config, key=key)

    @classmethod
    def from_pydantic(cls, config: Any, *, key: str | None = None) -> Self:
        """Make an instance from the fields of a pydantic model."""
        return cls.from_config(config, key=key)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, key: str | None = None) -> Self:
        """Make an instance from a mapping."""
        part = _part(config, key)
        if not _names_a_class(part):
            arguments = {name: _made(value, ()) for name, value in part.items()}
            return cast(Self, _call(cls, (), arguments))
        # A bare class name is looked up in this class's module.
        made = instantiate_obj(part, search=(cls.__module__,))
        if not isinstance(made, cls):
            raise GetiactionError(
                f"{part[CLASS_PATH]!r} gives a {type(made).__name__}; expected a {cls.__name__}"
            )
        return made


def instantiate_obj(config: Any, key: str | None = None, *, search: Sequence[str] = ()) -> Any:
    """Instantiate the object that a configuration names by ``class_path`` and ``init_args``.

    Args:
        config: Path of a YAML file, mapping, dataclass instance or pydantic model.
        key: The part of the configuration to use; all of it unless given.
        search: Modules in which a class name without a module is looked up.

    Raises:
        GetiactionError: no class is named, it cannot be imported, or it refuses its arguments.
    """
    part = _part(as_dict(config), key)
    if CLASS_PATH not in part:
        raise GetiactionError(
            f"the configuration names no class: expected {CLASS_PATH!r} and {INIT_ARGS!r}; "
            f"it has: {', '.join(map(str, part)) or 'nothing'}"
        )
    unknown = set(part) - {CLASS_PATH, INIT_ARGS}
    if unknown:
        raise GetiactionError(
            f"beside {CLASS_PATH!r} only {INIT_ARGS!r} is expected, not: {', '.join(unknown)}"
        )
    arguments = {name: _made(value, search) for name, value in (part.get(INIT_ARGS) or {}).items()}
    return _call(find_class(part[CLASS_PATH], search), arguments.pop("args", ()), arguments)


def find_class(path: str, search: Sequence[str] = ()) -> Any:
    """Import a class or function by path, e.g. ``getiaction.trainers.LeRobotTrainer``.

    Args:
        path: The full name, or a bare one in one of the modules ``search``.
        search: Modules for bare names.
    """
    module, _, name = path.rpartition(".")
    for place in (module,) if module else search:
        try:
            found = getattr(importlib.import_module(place), name, None)
        except ImportError as error:
            raise GetiactionError(f"{path!r} cannot be imported: {error}") from error
        if found is not None:
            return found
    places = module or " or ".join(search) or "sight"
    raise GetiactionError(
        f"there is no {name!r} in {places}; give the whole path, as in 'package.module.{name}'"
    )


def as_dict(config: Any) -> dict[str, Any]:
    """Turn a YAML file's path, a mapping, a dataclass instance or a pydantic model into a dict."""
    if isinstance(config, str | Path):
        return _read_yaml(Path(config))
    if isinstance(config, Mapping):
        return dict(config)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        # Not asdict, which would also convert nested dataclasses.
        return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    # By attribute, so that pydantic is needed only by those who use it.
    fields = getattr(type(config), "model_fields", None)
    if fields is not None:
        return {name: getattr(config, name) for name in fields}
    raise GetiactionError(
        f"a {type(config).__name__} is not a configuration; expected the path of a YAML file, a "
        "mapping, a dataclass instance or a pydantic model"
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = _READER.read(path)
    except OSError as error:
        raise GetiactionError(f"the configuration {path} cannot be read: {error}") from error
    return _READER.parse_yaml(content, dict[str, Any], f"the configuration {path}")


def _part(config: Mapping[str, Any], key: str | None) -> dict[str, Any]:
    if key is None:
        return dict(config)
    if key not in config:
        raise GetiactionError(f"the configuration has no {key!r}; it has: {', '.join(config)}")
    return as_dict(config[key])


def _names_a_class(value: Any) -> bool:
    return isinstance(value, Mapping) and {CLASS_PATH, INIT_ARGS} <= value.keys()


def _made(value: Any, search: Sequence[str]) -> Any:
    """Instantiate the objects that ``value`` or its members name."""
    if _names_a_class(value):
        return instantiate_obj(value, search=search)
    if isinstance(value, Mapping):
        return {name: _made(member, search) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_made(member, search) for member in value)
    return value


def _call(maker: Any, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    try:
        return maker(*positional, **keywords)
    except TypeError as error:
        raise GetiactionError(
            f"{getattr(maker, '__name__', maker)} refuses its arguments: {error}"
        ) from error
