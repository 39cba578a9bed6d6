"""Policy registry: LeRobot's policies by name, and error messages for unknown ones.

LeRobot's policies and processor steps register when their modules are imported, as ``import
lerobot.policies`` does with all of them. Programs of this project import only those that they need
(:mod:`getiaction.deferred_imports`), by name, here.
"""

import importlib.metadata
import importlib.util
import logging
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

import lerobot.policies
import lerobot.processor
from lerobot.configs import PreTrainedConfig
from lerobot.processor import ProcessorStepRegistry
from lerobot.utils.import_utils import register_third_party_plugins

from foundation.text import did_you_mean
from getiaction.errors import GetiactionError
from getiaction.policies.safety import POSTPROCESSOR, PREPROCESSOR, read_processor

# Former names that people still use; for others the nearest name is suggested.
_NEVER = "has never been a LeRobot policy"
_FORMER: Mapping[str, str] = {
    **dict.fromkeys(("ppo", "ddpg", "dqn", "ibc"), _NEVER),
    "sac": "left LeRobot's policies in 0.6.0; its actor is 'gaussian_actor' and is trained online "
    "with lerobot.rl, not from a dataset",
    "pi0fast": "is now 'pi0_fast'",
    "reward_classifier": "is a reward model, not a policy; see lerobot.rewards",
    "sarm": "is a reward model, not a policy; see lerobot.rewards",
}


def list_available_policies() -> list[str]:
    """Return every policy name that LeRobot registers, including installed plugins."""
    for name in lerobot.policies.__all__:
        getattr(lerobot.policies, name)
    _load_plugins()
    return sorted(PreTrainedConfig.get_known_choices())


def log_loading() -> None:
    """Let LeRobot log that it loads weights, instead of printing it among a program's output."""
    from lerobot.policies import pretrained

    vars(pretrained)["print"] = logging.getLogger("lerobot").info


def config_class(policy_name: str) -> type[PreTrainedConfig]:
    """Return LeRobot's config class of a policy.

    Raises:
        GetiactionError: no such policy; the message says what became of it, or the nearest name,
            and lists all.
    """
    known = PreTrainedConfig.get_known_choices()
    if policy_name not in known:
        _import_own(policy_name, "configuration")
    # Looking for plugins reads the metadata of every installed package.
    if policy_name not in known and policy_name not in list_available_policies():
        former = _FORMER.get(policy_name)
        why = did_you_mean(policy_name, known) if former is None else f": {policy_name!r} {former}"
        version = importlib.metadata.version("lerobot")
        raise GetiactionError(
            f"there is no policy {policy_name!r} in LeRobot {version}{why}; "
            f"it offers: {', '.join(sorted(known))}"
        )
    found: type[PreTrainedConfig] = PreTrainedConfig.get_choice_class(policy_name)
    return found


def register_steps(directory: Path) -> None:
    """Import the modules that register the steps of the processors in ``directory``.

    Unknown steps are left for LeRobot to refuse.

    Raises:
        InvalidDocument: a processor's file is invalid.
    """
    files = (directory / name for name in (PREPROCESSOR, POSTPROCESSOR))
    steps = [step for file in files if file.exists() for step in read_processor(file).steps]
    named = {step.registry_name for step in steps}
    for register in _registering():
        if named <= set(ProcessorStepRegistry.list()):
            return
        register()


def _registering() -> Iterator[Callable[[], object]]:
    for name in lerobot.processor.__all__:
        yield partial(getattr, lerobot.processor, name)
    for module in pkgutil.iter_modules(lerobot.policies.__path__):
        yield partial(_import_own, module.name, "processor")


def missing_dependency(policy_name: str, error: ImportError) -> GetiactionError:
    """Turn an ImportError of a policy into one line that says how to install the package."""
    named = re.search(r"lerobot\[([^\]]+)\]", str(error))
    extra = _extra(named[1] if named else policy_name)
    missing = error.name or str(error).split("'")[1::2][:1]
    what = missing if isinstance(missing, str) else ", ".join(missing) or str(error)
    return GetiactionError(
        f"policy {policy_name!r} needs {what!r}, which is not installed: "
        f"pip install 'lerobot[{extra}]'"
    )


def _extra(name: str) -> str:
    """Return LeRobot's extra ``name``, or the longest extra that is a prefix of it."""
    offered = importlib.metadata.metadata("lerobot").get_all("Provides-Extra") or []
    near = [extra for extra in offered if _letters(name).startswith(_letters(extra))]
    return max(near, key=len, default=name)


def _letters(name: str) -> str:
    return re.sub(r"[-_.]", "", name.lower())


def _import_own(policy_name: str, kind: str) -> None:
    """Import a module of a LeRobot policy, if both policy and module exist."""
    package = f"{lerobot.policies.__name__}.{policy_name}"
    # A name with a dot, from an untrusted file, is not a package there.
    if policy_name.isidentifier() and importlib.util.find_spec(package) is not None:
        module = f"{package}.{kind}_{policy_name}"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)


@cache
def _load_plugins() -> None:
    register_third_party_plugins()
