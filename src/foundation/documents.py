"""Reader of untrusted JSON, YAML and TOML files: bounded, validated, parsed into typed objects.

Contracts, manifests, metadata of datasets, configurations: every document that may come from
another machine is read here and nowhere else (``make check`` enforces it). A document is bounded in
bytes, nesting and number of values, checked against a pydantic model or any annotated type, and
refused in one line that names the file, the field, what was expected and how to mend it. Names of
files inside a document are of type :data:`RelativeName`, and :func:`inside` checks them again when
they are opened, since a folder on the way may be a symbolic link.
"""

import json
import math
import os
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from foundation.errors import FoundationError
from foundation.text import printable

__all__ = [
    "Document",
    "InvalidDocument",
    "Reader",
    "RelativeName",
    "inside",
    "plain",
    "relative_name",
]

_NO_NAMES = frozenset({"", ".", ".."})
_CONTAINERS = (dict, list, tuple, set, Mapping)


class InvalidDocument(FoundationError):
    """A file's content is not what was expected."""


class Document(BaseModel):
    """Base class of parsed documents: frozen, strict types, unknown fields ignored.

    A JSON array is a ``list``; for a tuple declare ``Annotated[tuple[int, ...],
    Field(strict=False)]``.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def relative_name(name: str) -> str:
    """Return ``name`` if it is the plain relative path of a file: no ``..``, no root, no NUL.

    Raises:
        ValueError: it is not.
    """
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and _NO_NAMES.isdisjoint(parts)
    # File systems take 255 bytes in each part; 63 characters have no more than 252.
    if not plain or len(name) > 1024 or (len(name) > 63 and _has_a_long_part(parts)):
        raise ValueError("expected a plain relative path such as 'data/file.parquet'")
    return name


def _has_a_long_part(parts: list[str]) -> bool:
    return any(len(part.encode()) > 255 for part in parts)


RelativeName = Annotated[str, AfterValidator(relative_name)]
"""Type of a document's field that names a file: see :func:`relative_name`."""


def inside(directory: str | Path, name: str) -> Path:
    """Return the path of ``name`` below ``directory``, for reading or writing.

    Raises:
        InvalidDocument: the name, or a symbolic link in the path of its folder, points outside the
            directory.
    """
    try:
        path = Path(directory) / PurePosixPath(relative_name(name))
        root = Path(directory).resolve()
        if not path.parent.resolve().is_relative_to(root):
            raise ValueError("a symbolic link leads out of the directory")
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: links form a loop
        raise InvalidDocument(
            f"{directory} must not name the file '{printable(name)}': {error}"
        ) from error
    return path


@dataclass(frozen=True)
class Reader:
    """Reader of one kind of document: its bounds, and the error raised for one that is invalid.

    Attributes:
        error: the exception for invalid content; a missing file stays an ``OSError``.
        mend: how to mend it, the last part of every message.
        size: bytes that a document may have at most.
        depth: levels of nesting that it may have at most.
        values: numbers, strings, lists and objects that it may hold at most.
        allow_nan: whether it may hold NaN and infinities.
    """

    error: type[Exception] = InvalidDocument
    mend: str = ""
    size: int = 16 << 20
    depth: int = 64
    values: int = 2_000_000
    allow_nan: bool = False

    def read(self, path: str | Path) -> bytes:
        """Return the content of a regular file; never block on a pipe or a device.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be read.
            error: it is not a regular file, or larger than ``size``.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise self.refusal(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(self.size + 1) if status.st_size <= self.size else None
        if content is None or len(content) > self.size:
            raise self.refusal(f"{path} is larger than the {self.size} bytes expected")
        return content

    def load_json[T](self, path: str | Path, kind: type[T]) -> T:
        """Return the JSON file at ``path`` as ``kind``: a :class:`Document` or an annotated type.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be read.
            error: it is not a regular file, too large, not JSON, or not of that kind.
        """
        return self.parse_json(self.read(path), kind, str(path))

    def load_yaml[T](self, path: str | Path, kind: type[T]) -> T:
        """Return the YAML file at ``path`` as ``kind``; see :meth:`load_json`."""
        return self.parse_yaml(self.read(path), kind, str(path))

    def load_toml[T](self, path: str | Path, kind: type[T]) -> T:
        """Return the TOML file at ``path`` as ``kind``; see :meth:`load_json`."""
        return self.parse_toml(self.read(path), kind, str(path))

    def parse_json[T](self, content: bytes | str, kind: type[T], source: str) -> T:
        """Return JSON text read from ``source`` as ``kind``; see :meth:`load_json`."""
        return self._parse(json.loads, "JSON", content, kind, source)

    def parse_yaml[T](self, content: bytes | str, kind: type[T], source: str) -> T:
        """Return YAML text read from ``source`` as ``kind``; see :meth:`load_json`."""
        return self._parse(partial(_parse_yaml, values=self.values), "YAML", content, kind, source)

    def parse_toml[T](self, content: bytes | str, kind: type[T], source: str) -> T:
        """Return TOML text read from ``source`` as ``kind``; see :meth:`load_json`."""
        return self._parse(tomllib.loads, "TOML", content, kind, source)

    def validate[T](self, value: Any, kind: type[T], source: str) -> T:
        """Return a document parsed from ``source`` as ``kind``.

        Raises:
            error: it exceeds the bounds or is not of that kind.
        """
        fault = self._beyond(value)
        if fault is not None:
            raise self.refusal(f"{source} {fault}")
        try:
            validated: T = _adapter(kind).validate_python(value)  # type: ignore[arg-type]
        except ValidationError as wrong:
            raise self.refusal(f"{source}: {_first(wrong)}") from wrong
        except RecursionError as wrong:
            raise self.refusal(f"{source} is nested too deeply") from wrong
        return validated

    def refusal(self, what: str) -> Exception:
        """Return the error that says what was wrong and how to mend it."""
        return self.error(f"{what}; {self.mend}" if self.mend else what)

    def _parse[T](
        self,
        parse: Callable[[str], Any],
        name: str,
        content: bytes | str,
        kind: type[T],
        source: str,
    ) -> T:
        if len(content) > self.size:
            raise self.refusal(f"{source} is larger than the {self.size} bytes expected")
        # Checked before parsing: "[],[],[]" takes thirty times its size as Python objects.
        separated = content.count(",") if isinstance(content, str) else content.count(b",")
        if separated > self.values:
            raise self.refusal(f"{source} {self._too_many()}")
        try:
            value = parse(content if isinstance(content, str) else content.decode("utf-8-sig"))
        except RecursionError as fault:
            raise self.refusal(f"{source} is nested too deeply") from fault
        except (ValueError, MemoryError) as fault:
            why = printable(fault) or type(fault).__name__
            raise self.refusal(f"{source} is not {name}: {why}") from fault
        return self.validate(value, kind, source)

    def _beyond(self, value: Any) -> str | None:
        """Return which bound a parsed document exceeds; None if none."""
        count = 1
        waiting: list[tuple[int, Iterable[Any]]] = [(0, (value,))]
        while waiting:
            depth, parts = waiting.pop()
            if depth > self.depth:
                return f"is nested more than {self.depth} levels deep"
            for part in parts:
                kind = type(part)  # once per value: there may be millions
                if kind is str:
                    if not part.isascii() and not _encodes(part):
                        return f"holds text that is not Unicode: {printable(ascii(part))}"
                elif kind is float:
                    if not self.allow_nan and not math.isfinite(part):
                        return f"holds the number {part}; expected finite numbers"
                elif kind is not int and isinstance(part, _CONTAINERS):
                    count += len(part)
                    waiting.append((depth + 1, part))
                    if isinstance(part, Mapping):
                        count += len(part)
                        waiting.append((depth + 1, part.values()))
            if count > self.values:
                return self._too_many()
        return None

    def _too_many(self) -> str:
        return f"holds more than the {self.values} values expected"


def plain(value: Any) -> Any:
    """Return a value after a round trip through JSON: tuples become lists, keys strings."""
    return json.loads(json.dumps(value))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Strict: "1" is not a number, and 1 is not true. Set here and not when validating, which would
    # override fields with strict=False, such as tuples.
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return TypeAdapter(kind)  # a model sets it in its own configuration
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _parse_yaml(text: str, values: int) -> Any:
    import yaml  # comes with the training extra; only YAML files need it

    try:
        return yaml.load(text, _yaml_loader(values))  # a SafeLoader that can do less
    # A tag on a value of another type, a list as a key: PyYAML lets such errors through as they
    # are.
    except (yaml.YAMLError, TypeError, AttributeError, LookupError, ArithmeticError) as fault:
        raise ValueError(str(fault)) from fault


@cache
def _yaml_loader(values: int) -> Any:
    """Return a SafeLoader whose time is linear in the size of the text.

    Refused are aliases that expand to more than ``values`` values (aliases of aliases expand
    exponentially) and numbers with colons, which YAML reads as base 60, in quadratic time.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None and expanded(node, {}) > values:
                raise yaml.YAMLError(f"aliases that stand for more than {values} values")
            return node

    def expanded(node: Any, known: dict[int, int]) -> int:
        """Return the number of values in a node, with its aliases expanded."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in known:
            known[id(node)] = values + 1  # in case it contains itself
            mapping = isinstance(node, yaml.MappingNode)
            parts = [part for pair in node.value for part in pair] if mapping else node.value
            known[id(node)] = 1 + sum(expanded(part, known) for part in parts)
        return known[id(node)]

    def number(kind: str) -> Any:
        plain = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")

        def construct(loader: Any, node: Any) -> Any:
            if ":" in node.value:
                raise yaml.YAMLError(f"{node.value[:20]}, a number of base 60; quote what is text")
            return plain(loader, node)

        return construct

    for kind in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", number(kind))
    return Loader


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(wrong: ValidationError) -> str:
    """Describe the first validation error: its field, what was expected, and what was found."""
    fault = wrong.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"field '{printable(field)}' is missing"
    named = f"field '{printable(field)}': " if field else ""
    told = fault["msg"].removeprefix("Value error, ")
    told = told.replace("Input should be", "expected", 1)
    return f"{named}{told}, found {printable(_shown(fault['input']), 80)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 300:
        return "a number of more than 90 digits"  # Python refuses to print thousands of them
    return repr(value[:100]) if isinstance(value, str | bytes) else repr(value)
