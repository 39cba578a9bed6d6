"""Which policies LeRobot has, and what to say about one that it has not."""

import difflib
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from functools import cache

import lerobot.policies  # noqa: F401 - importing it registers the policies
from lerobot.configs import PreTrainedConfig
from lerobot.utils.import_utils import register_third_party_plugins

from getiaction.errors import GetiactionError

# What became of names that people still know; the rest is answered by the nearest name.
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
    """Return every policy name that LeRobot registers, those of installed plugins included."""
    _load_plugins()
    return sorted(PreTrainedConfig.get_known_choices())


def config_class(policy_name: str) -> type[PreTrainedConfig]:
    """Return LeRobot's config class of a policy.

    Raises:
        GetiactionError: no such policy; says what became of it, or the nearest name, and what is
            offered.
    """
    # Looking for plugins reads the metadata of every installed package.
    if policy_name not in PreTrainedConfig.get_known_choices():
        _load_plugins()
    known = PreTrainedConfig.get_known_choices()
    if policy_name not in known:
        former = _FORMER.get(policy_name)
        why = nearest(policy_name, known) if former is None else f": {policy_name!r} {former}"
        version = importlib.metadata.version("lerobot")
        raise GetiactionError(
            f"there is no policy {policy_name!r} in LeRobot {version}{why}; "
            f"it offers: {', '.join(sorted(known))}"
        )
    found: type[PreTrainedConfig] = PreTrainedConfig.get_choice_class(policy_name)
    return found


def nearest(word: str, offered: Iterable[str]) -> str:
    """Return " (did you mean '...'?)", or nothing where no name is near."""
    near = difflib.get_close_matches(word.lower(), list(offered), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def missing_dependency(policy_name: str, error: ImportError) -> GetiactionError:
    """Turn the failure to import what a policy needs into one line that says how to install it."""
    named = re.search(r"lerobot\[([^\]]+)\]", str(error))
    extra = _extra(named[1] if named else policy_name)
    missing = error.name or str(error).split("'")[1::2][:1]
    what = missing if isinstance(missing, str) else ", ".join(missing) or str(error)
    return GetiactionError(
        f"policy {policy_name!r} needs {what!r}, which is not installed: "
        f"pip install 'lerobot[{extra}]'"
    )


def _extra(name: str) -> str:
    """Return LeRobot's extra called ``name``, or the longest one that its name begins with."""
    offered = importlib.metadata.metadata("lerobot").get_all("Provides-Extra") or []
    near = [extra for extra in offered if _letters(name).startswith(_letters(extra))]
    return max(near, key=len, default=name)


def _letters(name: str) -> str:
    return re.sub(r"[-_.]", "", name.lower())


@cache
def _load_plugins() -> None:
    register_third_party_plugins()
