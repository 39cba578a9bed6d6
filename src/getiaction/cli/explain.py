"""One line for people out of what jsonargparse has to say about a command line.

jsonargparse answers with the usage and every alternative that it tried, over many lines. What
matters in it is found here by its wording, and what it does not do, a suggestion, is added.
"""

import importlib
import re
from collections.abc import Iterable
from typing import Any

from jsonargparse import ArgumentParser

from getiaction.cli import did_you_mean, one_line

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"class_path '([^']+)'")
_NO_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_NO_KEY = re.compile(r"does not accept option '([^']+)'")
_NO_CLASS = (
    re.compile(r"Expected a dot import path string: (\S+)"),
    re.compile(r"Import path (\S+) does not correspond to a subclass"),
    re.compile(r"Problem with given class_path '([^']+)':\s+(?:No module|module|Import path)"),
)
_BASE = re.compile(r"<class '([\w.]+)'>|list\[([\w.]+)\]")
_NOT_KNOWN = re.compile(r"nrecognized arguments: (.+)")
_NOT_A = re.compile(r"(Expected an? .+?)\. Got value: (.*)")
_SUBTYPES = re.compile(r"Subtypes: \[(.+)\]")
_VALUE = re.compile(r"Given value: (.+)\s*\Z", re.DOTALL)


def explain(message: str, parser: Any) -> str:
    """Return one line that says what is wrong and, where a name is near, what was meant.

    Args:
        message: What jsonargparse would have printed.
        parser: The parser of the command.
    """
    key = _first(_KEY, message)
    if (option := _first(_NO_OPTION, message)) is not None:
        owner = _before(_CLASS, message, f"Option '{option}'")
        return _no_option(option, owner, key)
    for pattern in _NO_CLASS:
        if (path := _first(pattern, message)) is not None:
            return f"{key or 'class_path'}: there is no class {path!r}{_nearest_class(path, message)}"
    if (unknown := _first(_NO_KEY, message)) is not None:
        return f"there is no option {unknown!r}{did_you_mean(unknown, _options(parser))}"
    if (words := _first(_NOT_KNOWN, message)) is not None:
        return _not_known(words.split(), parser)
    if key is not None and (wrong := _value(message)) is not None:
        return f"{'.'.join(dict.fromkeys(_KEY.findall(message)))}: {wrong}"
    return one_line(message)


def _no_option(option: str, owner: str | None, key: str | None) -> str:
    if owner is None:
        return f"{key}: there is no option {option!r}"
    name = owner.rpartition(".")[2]
    return f"{key}: {name} has no option {option!r}{did_you_mean(option, _arguments(owner))}"


def _not_known(words: list[str], parser: Any) -> str:
    flag = words[0].partition("=")[0]
    if not flag.startswith("-"):
        return f"unexpected {flag!r}; expected --name value"
    near = did_you_mean(flag, [f"--{name}" for name in _options(parser)])
    return f"there is no option {flag}{near.replace(chr(39), '')}"


def _value(message: str) -> str | None:
    """What is wrong with a value, if that is what is wrong."""
    if (match := _NOT_A.search(message)) is not None:
        return f"{_plain(match[1]).replace('Expected', 'expected')}, not {match[2].strip()!r}"
    types, given = _first(_SUBTYPES, message), _first(_VALUE, message)
    if types is None or given is None or given.startswith("NestedArg"):
        return None
    return f"{one_line(given)!r} is none of: {_plain(types)}"


def _plain(types: str) -> str:
    """Type names as people write them: ``<class 'int'>`` is ``int``."""
    return re.sub(r"<class '([\w.]+)'>", r"\1", types).replace("NoneType", "null")


def _nearest_class(path: str, message: str) -> str:
    """The class that may have been meant, among those of its module and those of the right kind."""
    module, _, name = path.rpartition(".")
    offered: dict[str, str] = {}
    for dotted in _BASE.findall(_first(_SUBTYPES, message) or ""):
        if (base := _imported(dotted[0] or dotted[1])) is not None:
            offered |= {cls.__name__: cls.__name__ for cls in _descendants(base)}
    near = did_you_mean(name, offered)
    if near and not module:
        return near
    try:
        inside = vars(importlib.import_module(module)) if module else {}
    except ImportError as error:
        return near or f": {error}"
    classes = [found for found, value in inside.items() if isinstance(value, type)]
    return did_you_mean(name, classes) or near


def _imported(dotted: str) -> type[Any] | None:
    module, _, name = dotted.rpartition(".")
    if not module:
        return None
    found = getattr(importlib.import_module(module), name, None)
    return found if isinstance(found, type) else None


def _descendants(base: type[Any]) -> Iterable[type[Any]]:
    for child in base.__subclasses__():
        yield child
        yield from _descendants(child)


def _arguments(class_path: str) -> list[str]:
    """Names of the arguments that a class takes."""
    made = _imported(class_path)
    if made is None:
        return []
    names: list[str] = ArgumentParser(exit_on_error=False).add_class_arguments(
        made, fail_untyped=False
    )
    return names


def _options(parser: Any) -> list[str]:
    """Names of the command's options; those of a policy or dataset depend on its class."""
    names = parser.get_defaults(skip_validation=True).keys()
    return [*names, "config", "print_config", "help"]


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return None if match is None else match[1]


def _before(pattern: re.Pattern[str], text: str, end: str) -> str | None:
    """The last match before ``end``: the innermost class that was looked at."""
    found = pattern.findall(text[: text.index(end)])
    return found[-1] if found else None
