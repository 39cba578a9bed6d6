"""Config fields of LeRobot's policies, read from its source instead of imported.

Importing one of LeRobot's configs imports torch and takes seconds; a mistyped flag should be
refused at once. Defaults and types other than plain Python ones are left to LeRobot, which checks
them later.
"""

import ast
import importlib.util
import inspect
import re
from functools import cache
from importlib.metadata import distributions
from inspect import Parameter
from pathlib import Path
from typing import Any

BASE = "PreTrainedConfig"
# Set by the data and the trainer; and nothing here uploads a policy by itself.
NOT_FLAGS = frozenset({"input_features", "output_features", "device", "push_to_hub"})
# For fields that LeRobot's docstrings leave out.
WORDS = {
    "use_amp": "Mixed precision, unless --precision says otherwise.",
    "use_peft": "LeRobot's mark of a policy with a PEFT adapter; such checkpoints are not loaded.",
    "repo_id": "Name on the Hugging Face Hub, OWNER/NAME.",
    "private": "Whether it is private on the Hub.",
    "tags": "Tags of its card on the Hub, a list of words.",
    "license": "Licence on its card on the Hub.",
    "pretrained_path": "Weights to begin with: a directory, or a name on the Hub.",
    "pretrained_revision": "Branch, tag or commit of those weights on the Hub.",
    "optimizer_lr": "Learning rate.",
    "optimizer_lr_backbone": "Learning rate of the vision backbone.",
    "optimizer_weight_decay": "Weight decay of the optimizer.",
    "optimizer_betas": "Betas of Adam.",
    "optimizer_eps": "Epsilon of Adam.",
    "optimizer_grad_clip_norm": "Norm that gradients are clipped to.",
    "scheduler_name": "Name of the learning rate's schedule.",
    "scheduler_warmup_steps": "Steps over which the learning rate rises.",
    "scheduler_decay_steps": "Steps over which the learning rate falls.",
    "scheduler_decay_lr": "Learning rate at the end.",
}
PLUGIN_PREFIX = "lerobot_policy_"
_REGISTERED = re.compile(rf"^@{BASE}\.register_subclass\(\"(\w+)\"\)", re.MULTILINE)
_SIMPLE = {"bool": bool, "int": int, "float": float, "str": str}


class LeRobotsOwn:
    """Stands for a default that is not a plain value: LeRobot makes it."""

    def __repr__(self) -> str:
        return "(LeRobot's own)"


@cache
def sources() -> dict[str, Path]:
    """Return the source file of each policy's config, by policy name; {} without LeRobot."""
    package = _package()
    if package is None:
        return {}
    files = sorted((package / "policies").glob("*/configuration_*.py"))
    return {name: file for file in files for name in _REGISTERED.findall(file.read_text("utf-8"))}


def has_plugins() -> bool:
    """Return whether plugins with further LeRobot policies are installed."""
    names = (str(package.name or "") for package in distributions())
    return any(name.replace("-", "_").startswith(PLUGIN_PREFIX) for name in names)


@cache
def parameters(policy: str) -> tuple[Parameter, ...]:
    """Return the config's fields as keyword parameters with defaults and simple types.

    Any field is accepted if the source is not available, as with a plugin's policy.
    """
    open_ended = (Parameter("fields", Parameter.VAR_KEYWORD),)
    package = _package()
    file = sources().get(policy)
    if package is None or file is None:
        return open_ended
    base = _classes(package / "configs" / "policies.py")[BASE]
    classes = {BASE: base, **_classes(file)}
    node = next(node for node in classes.values() if policy in _registered_as(node))
    found: dict[str, Parameter] = {}
    for ancestor in _lineage(node, classes):
        if ancestor is None:
            return open_ended
        found |= _fields(ancestor)
    return tuple(field for name, field in found.items() if name not in NOT_FLAGS)


def explained(policy: str) -> str:
    """Return the ``Args:`` section of LeRobot's policy config, with `WORDS` for what it omits."""
    file = sources().get(policy)
    if file is None:
        return "Args:"
    node = next(node for node in _classes(file).values() if policy in _registered_as(node))
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    # A section after it, such as an example, would take ours for its own.
    section = re.split(r"\n(?=\S)", text[text.find("Args:") :])[0] if "\nArgs:" in text else "Args:"
    ours = [f"    {n}: {words}" for n, words in WORDS.items() if f"\n    {n}" not in section]
    return "\n".join([section.rstrip(), *ours])


def _package() -> Path | None:
    found = importlib.util.find_spec("lerobot")
    places = None if found is None else found.submodule_search_locations
    return Path(next(iter(places))) if places else None


def _classes(file: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(file.read_text("utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _registered_as(node: ast.ClassDef) -> set[str]:
    called = [d for d in node.decorator_list if isinstance(d, ast.Call)]
    arguments = [call.args[0] for call in called if call.args]
    return {str(arg.value) for arg in arguments if isinstance(arg, ast.Constant)}


def _lineage(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef | None]:
    """Return the config's base classes, eldest first, and itself; None for an unknown one."""
    if node.name == BASE:
        return [node]
    elders: list[ast.ClassDef | None] = []
    for base in node.bases:
        known = classes.get(base.id) if isinstance(base, ast.Name) else None
        elders += [None] if known is None else _lineage(known, classes)
    return [*elders, node]


def _fields(node: ast.ClassDef) -> dict[str, Parameter]:
    return {
        line.target.id: _field(line.target.id, line)
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and not ast.unparse(line.annotation).startswith("ClassVar")
    }


def _field(name: str, line: ast.AnnAssign) -> Parameter:
    default, annotation = _default(line.value), _annotation(line.annotation)
    if isinstance(default, bool) and annotation is int:
        annotation = int | bool  # as LeRobot's own default shows
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _default(value: ast.expr | None) -> Any:
    try:
        return LeRobotsOwn() if value is None else ast.literal_eval(value)
    except ValueError:
        return LeRobotsOwn()


def _annotation(node: ast.expr) -> Any:
    """Return a field's declared type; ``Parameter.empty`` if it is not a simple one."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in _SIMPLE:
            return _SIMPLE[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = _annotation(left), _annotation(right)
            return Parameter.empty if Parameter.empty in sides else _union(*sides)
        case _:
            return Parameter.empty


def _union(left: Any, right: Any) -> Any:
    return right | None if left is None else left | right
