"""Settings of a training run as YAML: printed, kept with the run, and read again.

The file holds what the flags say, under their names, and ``policy`` with its ``type`` and fields.
``provenance`` in a run's file says what it was trained on and by what; nothing reads it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import configuronic as cfn
import yaml

from positronic import codec as codecs
from positronic import storage
from positronic.cli.flags import Flags, parse_value
from positronic.cli.help import did_you_mean, missing, parameters
from positronic.codec import Codec
from positronic.errors import PositronicError, UsageError
from positronic.vendors.lerobot import presets
from positronic.vendors.lerobot.training import options
from positronic.vendors.lerobot.training.options import Options

FILE_NAME = "config.yaml"
PRINT = "print"
PROVENANCE = "provenance"
TYPE = "type"
# Said of one start of the program, not of the run.
NOT_KEPT = ("config", "resume")


def prepare(config: cfn.Config, flags: Flags) -> tuple[cfn.Config, Flags]:
    """Take settings from files, and a policy by its name in LeRobot.

    ``--config=FILE`` is a file of settings; a run that goes on has one of its own. What flags say
    comes on top of either.
    """
    files = [str(word) for word in flags.given("config") if word != PRINT]
    resumed = flags.given("resume")[-1:]
    if not files and resumed and parse_value(None, "resume", resumed[0]):
        files = _own_file(flags)
    for file in files:
        config = apply(config, read(_fetched(file)), file)
    if PRINT in flags.given("config"):
        # What is still missing is printed as missing.
        config = config.override(config=PRINT, **dict.fromkeys(missing(config)))
        flags = flags.without("config")
    named = (flags.given("policy") + flags.given(f"policy.{TYPE}"))[-1:]
    if named and not str(named[0]).startswith(("@", ".")):
        config = config.override(policy=presets.registered(str(named[0])))
        flags = flags.without("policy", f"policy.{TYPE}")
    return config, flags


def _own_file(flags: Flags) -> list[str]:
    """The file in the run's directory, if the flags say which that is and it is there."""
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
        UsageError: it is not there, or no mapping in YAML.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config={file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config={file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise UsageError(f"--config={file} holds no settings; expected flags and their values")
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
            raise UsageError(f"{file}: there is no setting {name!r}{did_you_mean(name, known)}")
        if value is None and parameters(config)[name].default is not None:
            continue  # printed before it was given
        try:
            config = config.override(**{name: _read_value(config, name, value)})
        except PositronicError as error:
            raise UsageError(f"{file}: {error}") from error
        except cfn.ConfigError as error:
            raise UsageError(f"{file}: {name}: {error.__cause__ or error}") from error
    return config


def _read_value(config: cfn.Config, name: str, value: Any) -> Any:
    if name == "policy" and not str(value).startswith(("@", ".")):
        return _policy(value)
    if name == "codec" and isinstance(value, Mapping):
        return codecs.from_spec(value.get("spec", {}))
    if value is False and "off" in options.CHOICES.get(name, ()):
        return "off"  # YAML takes the bare word for a truth value
    return parse_value(config, name, value)


def _policy(value: Any) -> cfn.Config:
    fields = dict(value) if isinstance(value, Mapping) else {TYPE: value}
    name = fields.pop(TYPE, None)
    if name is None:
        raise UsageError("policy has no type; expected LeRobot's name of it, as in type: act")
    config = presets.registered(str(name))
    known = parameters(config)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for field in fields:
        if field not in known and not open_ended:
            hint = did_you_mean(field, known)
            raise UsageError(f"policy {name!r} has no field {field!r}{hint}")
    checked = {k: parse_value(config, f"policy.{k}", given) for k, given in fields.items()}
    return presets.registered(str(name), checked)


def document(given: Options, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as a mapping.

    Args:
        given: What the flags say.
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
