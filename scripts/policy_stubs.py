"""Write the type stub by which editors and type checkers know the policies' settings.

Run ``python scripts/policy_stubs.py`` when LeRobot's version changes; a test compares.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

from getiaction.policies import lerobot
from getiaction.policies.lerobot.named import policy_classes
from getiaction.policies.lerobot.universal import LeRobotPolicy

STUB = Path(lerobot.__file__).with_suffix(".pyi")
HEADER = '''\
"""Written by scripts/policy_stubs.py from LeRobot's config dataclasses; do not edit."""

from pathlib import Path
from typing import Any

{imports}

from getiaction.policies.lerobot.configs import policy_config as policy_config
from getiaction.policies.lerobot.universal import LeRobotPolicy as LeRobotPolicy

__all__ = [{names}]

LeRobotPolicyAdapter = LeRobotPolicy
"""Another name of :class:`LeRobotPolicy`."""

def is_available() -> bool: ...
def list_available_policies() -> list[str]:
    """Return the name of every policy of LeRobot and its plugins; none where it is missing."""
'''
HAND_MADE = ("LeRobotPolicy", "LeRobotPolicyAdapter")
FUNCTIONS = ("is_available", "list_available_policies", "policy_config")
QUALIFIED = r"\b(lerobot(?:\.\w+)*)\.([A-Z]\w+)"
LONG = 60
LITERALS = (bool, int, float, str, type(None))


def stub() -> str:
    """Return the text of the stub, of LeRobot's own policies; plugins differ between machines."""
    classes = {name: made for name, made in policy_classes().items() if _is_native(made)}
    body = "\n".join(_class(name, classes[name]) for name in sorted(classes))
    types: dict[str, set[str]] = {}
    for module, name in re.findall(QUALIFIED, body):
        types.setdefault(module, set()).add(name)
    imports = "\n".join(_import(module, sorted(types[module])) for module in sorted(types))
    offered = sorted([*classes, *HAND_MADE], key=lambda name: (not name.isupper(), name))
    names = "".join(f'\n    "{name}",' for name in [*offered, *FUNCTIONS])
    header = HEADER.format(imports=imports, names=f"{names}\n")
    return header + "\n" + re.sub(QUALIFIED, r"\2", body)


def _import(module: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"from {module} import {names[0]}"
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])


def _is_native(made: type[LeRobotPolicy]) -> bool:
    doc = made.__doc__ or ""
    name = re.search(r"LeRobot's ``(\w+)``", doc)
    return name is not None and hasattr(__import__("lerobot.policies").policies, name[1])


def _class(name: str, made: type[LeRobotPolicy]) -> str:
    doc = f"LeRobot's policy ``{made.POLICY_NAME}``; takes the fields of ``{name}Config``."
    lines = [f"class {name}(LeRobotPolicy):", f'    """{doc}"""', ""]
    lines += ["    def __init__(", "        self,", "        *,"]
    for parameter in inspect.signature(made).parameters.values():
        hint = inspect.formatannotation(parameter.annotation)
        hint = hint.replace("typing.", "").replace("pathlib.", "")
        hint = re.sub(r"\bdict\b(?!\[)", "dict[str, Any]", hint)
        lines.append(f"        {parameter.name}: {hint}{_default(parameter.default)},")
    return "\n".join([*lines, "    ) -> None: ...", ""])


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return ""
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return f" = {text}" if type(value) in LITERALS and len(text) < LONG else " = ..."


if __name__ == "__main__":
    STUB.write_text(stub())
    print(f"wrote {STUB}")
