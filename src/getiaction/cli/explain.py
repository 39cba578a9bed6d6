"""Condense jsonargparse's error message about a command line to one line.

jsonargparse prints the usage and every alternative that it tried, on many lines. The relevant part
is extracted by regular expressions, and a suggestion is added.
"""

import re
from typing import Any

from jsonargparse import ArgumentParser

from getiaction.cli.classes import descendants, imported, no_class
from getiaction.cli.quick import no_argument, no_option, still_needed
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.policies.lerobot.named import policy_classes

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"class_path '([^']+)'")
_NO_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_NO_KEY = re.compile(r"does not accept option '([^']+)'")
_NO_CLASS = (
    re.compile(r"Expected a dot import path string: (\S+)"),
    re.compile(r"Import path (\S+) does not correspond to a subclass"),
    re.compile(r"Problem with given class_path '([^']+)':\s+(?:No module|module|Import path)"),
)
_SEVERAL = re.compile(r"Multiple subclasses with name (\S+)\. .*?: (.+?)\.\n")
_MISSING = re.compile(r"arguments are required: (.+)")
_NOT_KNOWN = re.compile(r"nrecognized arguments: (.+)")
_NO_CONFIG = re.compile(r"Unable to load config ['\"](.+)['\"]")
_NOT_A = re.compile(r"Expected an? (.+?)\. Got value: (.*)")
_SUBTYPES = re.compile(r"Subtypes: \[(.+)\]")
_BASE = re.compile(r"<class '([\w.]+)'>|list\[([\w.]+)\]")
_VALUE = re.compile(r"Given value: (.+)")


def explain(message: str, parser: Any) -> str:
    """Return a one-line error message, with a suggestion if a similar name exists.

    Args:
        message: jsonargparse's message.
        parser: The parser of the command.
    """
    if (match := _NO_OPTION.search(message)) is not None:
        return _no_option(match[1], message[: match.start()])
    if (match := _SEVERAL.search(message)) is not None:
        return f"{_key_path(message)}{match[1]!r} may be {' or '.join(match[2].split(', '))}"
    for pattern in _NO_CLASS:
        if (match := pattern.search(message)) is not None:
            before = message[: match.start()]
            return f"{_key_path(before)}{no_class(match[1], _names_of_kind(before))}"
    if (match := _NO_KEY.search(message)) is not None:
        return no_option(match[1], _options(parser))
    if (match := _NOT_KNOWN.search(message)) is not None:
        return _not_known(match[1].split(), parser)
    if (match := _MISSING.search(message)) is not None:
        command = match[1].partition(".")[0]
        parts = [name.rpartition(".")[2] for name in match[1].split(", ")]
        return still_needed(command, parts)
    if (match := _NO_CONFIG.search(message)) is not None:
        return f"{_key_path(message)}{match[1]!r} is neither a mapping nor a file with one"
    return _wrong_value(message) or _one_line(message)


def _no_option(option: str, before: str) -> str:
    owners = _CLASS.findall(before)
    owner = imported(owners[-1]) if owners else None
    if owner is None:
        return f"{_key_path(before)}there is no option {option!r}"
    # jsonargparse's own reading of the signature.
    names = ArgumentParser(exit_on_error=False).add_class_arguments(owner, fail_untyped=False)
    if owner is LeRobotPolicy:
        mend = "; name the policy's own class, as in --model ACT"
        return no_argument(_key_path(before), owner.__name__, option, ()) + mend
    return no_argument(_key_path(before), owner.__name__, option, names)


def _not_known(words: list[str], parser: Any) -> str:
    flag = words[0].partition("=")[0]
    if not flag.startswith("-"):
        return f"unexpected {flag!r}; expected --name value"
    return no_option(flag, [f"--{name}" for name in _options(parser)])


def _wrong_value(message: str) -> str | None:
    keys = list(_KEY.finditer(message))
    if not keys:
        return None
    # The part about the innermost key; later lines are about alternatives of outer keys.
    part = message[keys[-1].end() :]
    types, value = _SUBTYPES.search(part), _VALUE.search(part)
    if types is not None and value is not None:
        return f"{_key_path(message)}{_one_line(value[1])!r} is not one of: {_plain(types[1])}"
    single = _NOT_A.search(part)
    if single is not None:
        return f"{_key_path(message)}{single[2].strip()!r} is not a valid {_plain(single[1])}"
    return None


def _key_path(message: str) -> str:
    """The path of keys in ``message``, such as ``data.val_gyms: ``."""
    keys = list(dict.fromkeys(_KEY.findall(message)))
    return f"{'.'.join(keys)}: " if keys else ""


def _plain(types: str) -> str:
    """Readable type names: ``<class 'int'>`` becomes ``int``."""
    names = re.sub(r"<class '([\w.]+)'>", r"\1", types).replace("NoneType", "null")
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", names)


def _names_of_kind(before: str) -> list[str]:
    """Names of the classes accepted at the end of ``before``."""
    policy_classes()
    kinds = _SUBTYPES.findall(before)
    bases = [imported(a or b) for a, b in _BASE.findall(kinds[-1])] if kinds else []
    return [cls.__name__ for base in bases if base is not None for cls in descendants(base)]


def _options(parser: Any) -> list[str]:
    """Names of the command's options; those of a policy or dataset depend on its class."""
    names = parser.get_defaults(skip_validation=True).keys()
    return [*names, "config", "print_config", "help"]


def _one_line(text: str) -> str:
    """Return ``text`` without its line breaks."""
    return " ".join(text.split())
