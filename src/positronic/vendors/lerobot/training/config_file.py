"""YAML settings of a training run: printed, saved with the run, and read back.

The file holds the flags by name, and ``policy`` with its ``type`` and fields. ``provenance`` in a
run's file records the dataset and the versions; no setting is read from it.

A file may come from somebody else, as with a resumed run. So it holds plain data: unlike the
command line it may name presets and this project's codecs only, no other Python objects.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import configuronic as cfn
import yaml

from foundation import storage
from foundation.documents import Reader
from foundation.errors import FoundationError, UsageError
from foundation.text import did_you_mean, printable
from positronic import codec as codecs
from positronic.cli.flags import Flags, parse_value
from positronic.cli.help import missing, parameters
from positronic.codec import Codec
from positronic.vendors.lerobot import codecs as our_codecs
from positronic.vendors.lerobot.training import options, presets
from positronic.vendors.lerobot.training.options import Options

FILE_NAME = "config.yaml"
PRINT = "print"
PROVENANCE = "provenance"
TYPE = "type"
# Flags of one start of the program, not of the run.
NOT_KEPT = ("config", "resume")
# Objects that a file may name, by setting.
_REGISTRIES = {"policy": presets, "codec": our_codecs}

READER = Reader(
    error=UsageError,
    mend="expected settings and their values, as --config=print shows them",
    size=1 << 20,
    depth=32,
    values=100_000,
)


def prepare(config: cfn.Config, flags: Flags) -> tuple[cfn.Config, Flags]:
    """Apply settings from files, and look up a policy by its LeRobot name.

    ``--config=FILE`` is a file of settings; a resumed run has one of its own. Flags override
    either.
    """
    files = [str(word) for word in flags.given("config") if word != PRINT]
    resumed = flags.given("resume")[-1:]
    if not files and resumed and parse_value(None, "resume", resumed[0]):
        files = _own_file(flags)
    for file in files:
        config = apply(config, read(_fetched(file)), file)
    if PRINT in flags.given("config"):
        # Missing settings are printed as null.
        config = config.override(config=PRINT, **dict.fromkeys(missing(config)))
        flags = flags.without("config")
    named = (flags.given("policy") + flags.given(f"policy.{TYPE}"))[-1:]
    name = str(named[0]) if named else "@"
    is_preset = name.startswith(".") and name[1:] in presets.__all__
    if not (name.startswith("@") or is_preset):
        config = config.override(policy=presets.registered(name.removeprefix(".")))
        flags = flags.without("policy", f"policy.{TYPE}")
    return config, flags


def _own_file(flags: Flags) -> list[str]:
    """Return the file in the run's directory, if the flags name that and it exists."""
    place, name = flags.given("output_dir")[-1:], flags.given("run_name")[-1:]
    if not (place and name):
        return []
    file = storage.join(str(place[0]), str(name[0]), FILE_NAME)
    return [file] if storage.exists(file) else []


def _fetched(file: str) -> Path:
    return storage.fetch_file(file) if storage.is_remote(file) else storage.local(file)


def read(file: Path) -> dict[str, Any]:
    """Return the settings in a file.

    Raises:
        UsageError: it does not exist, or is not a YAML mapping.
    """
    try:
        document: dict[str, Any] = READER.load_yaml(file, dict[str, Any])
    except OSError as error:
        raise UsageError(f"--config={file} cannot be read: {error.strerror}") from error
    return document


def apply(config: cfn.Config, document: Mapping[str, Any], file: str) -> cfn.Config:
    """Override ``config`` by the settings of ``document``.

    Raises:
        UsageError: an unknown setting, or a value of the wrong type; names the file.
    """
    known = [name for name in parameters(config) if name not in NOT_KEPT]
    for name, value in document.items():
        if name == PROVENANCE:
            continue
        if name not in known:
            raise UsageError(
                f"{file}: there is no setting {printable(name)!r}{did_you_mean(name, known)}"
            )
        if value is None and parameters(config)[name].default is not None:
            continue  # printed while it was still missing
        try:
            config = config.override_data(**{name: _read_value(config, name, value)})
        except FoundationError as error:
            raise UsageError(f"{file}: {error}") from error
        except cfn.ImportNotAllowedError as error:
            raise UsageError(f"{file}: {_foreign(error.key, error.value)}") from error
        except cfn.ConfigError as error:
            why = printable(error.__cause__ or error)
            raise UsageError(f"{file}: {name}: {why}") from error
    return config


def _read_value(config: cfn.Config, name: str, value: Any) -> Any:
    if name in _REGISTRIES and isinstance(value, str) and value.startswith(("@", ".")):
        return _registered(name, value)
    if name == "policy":
        return _policy(value)
    if name == "codec" and isinstance(value, Mapping):
        return codecs.from_spec(value.get("spec", {}))
    if name == "eval_env" and ":" in str(value):
        raise UsageError(_foreign(name, str(value)))  # Gymnasium imports the part before it
    if value is False and "off" in options.CHOICES.get(name, ()):
        return "off"  # YAML reads a bare off as false
    return parse_value(config, name, value)


def _registered(name: str, value: str) -> cfn.Config:
    """Return the preset or codec that a file names, from modules imported already."""
    registry = _REGISTRIES[name]
    found = vars(registry).get(value.removeprefix(f"@{registry.__name__}.").removeprefix("."))
    if not isinstance(found, cfn.Config):
        raise UsageError(_foreign(name, value))
    return found


def _foreign(name: str, value: str) -> str:
    return (
        f"{name} is {printable(value, 80)!r}, which names an object of Python; a file may name "
        "presets and our codecs only, so give it on the command line if you trust it"
    )


def _policy(value: Any) -> cfn.Config:
    fields = dict(value) if isinstance(value, Mapping) else {TYPE: value}
    name = fields.pop(TYPE, None)
    if name is None:
        raise UsageError("policy has no type; expected LeRobot's name of it, as in type: act")
    if not isinstance(name, str):
        raise UsageError(f"policy is {printable(name)}; expected LeRobot's name of it, as in act")
    config = presets.registered(name)
    known = parameters(config)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for field in fields:
        if not (field in known or (open_ended and field.isidentifier())):
            hint = did_you_mean(field, known)
            raise UsageError(f"policy {name!r} has no field {printable(field)!r}{hint}")
    checked = {k: parse_value(config, f"policy.{k}", given) for k, given in fields.items()}
    return presets.registered(name, checked)


def document(given: Options, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as a mapping.

    Args:
        given: The options.
        policy: All fields of the policy's config, as plain data.
    """
    values = {k: v for k, v in options.as_dict(given).items() if k not in NOT_KEPT}
    fields = {TYPE: given.policy.name, "warmup_steps": given.policy.warmup_steps, **policy}
    return values | {"policy": fields, "codec": _codec(given.codec)}


def _codec(codec: Codec | None) -> dict[str, Any] | None:
    return None if codec is None else {"name": codec.name, "spec": codec.to_spec()}


def dump(settings: Mapping[str, Any]) -> str:
    """Return the settings as YAML."""
    text: str = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=100)
    return text
