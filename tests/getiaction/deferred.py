"""What a program with deferred imports makes of policies; a test compares with its own process.

``python -m tests.getiaction.deferred policies LIGHT DATASET DIRECTORY`` or ``... names``
"""

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from getiaction import deferred_imports

HEAVY = ("torch._dynamo", "sympy", "diffusers", "datasets", "pandas", "scipy.signal", "lightning")
PACKAGES = ("policies", "processor", "configs", "datasets", "optim", "envs", "transforms", "utils")


def policies(dataset: Path, directory: Path) -> dict[str, Any]:
    """What becomes of each small policy that was saved: classes, actions, steps of training."""
    import torch

    from getiaction.policies.lerobot import LeRobotPolicy
    from tests.getiaction.policies.lerobot import small

    found: dict[str, Any] = {}
    for name in small.NAMES:
        policy = LeRobotPolicy.from_pretrained(directory / name)
        found[name] = {
            "class": str(type(policy.lerobot_policy)),
            "steps": [str(type(step)) for step in policy.preprocessor.steps],
            "actions": digest(small.actions(policy)),
            "trained": trained(small, dataset, name),
        }
        if name == "act":  # diffusers, which others use, imports it
            print("compiler", deferred_imports.COMPILER in sys.modules)
    compiled = torch.compile(torch.nn.Linear(2, 2), backend="eager")
    found["compiled"] = [*compiled(torch.ones(1, 2)).shape, trained(small, dataset, "act")]
    return found


def trained(small: Any, dataset: Path, name: str) -> str:
    """Weights after two steps of the optimizer of the policy's preset."""
    import torch

    policy = small.make(dataset, name)
    optimizer = policy.config.get_optimizer_preset().build(policy.lerobot_policy.get_optim_params())
    for _ in range(2):
        sum(parameter.square().sum() for parameter in policy.parameters()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return digest(torch.cat([each.detach().flatten() for each in policy.parameters()]))


def digest(tensor: Any) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def names() -> dict[str, Any]:
    """Where each name leads that LeRobot's packages offer, and what is registered thereafter."""
    found: dict[str, Any] = {}
    for name in PACKAGES:
        package = importlib.import_module(f"lerobot.{name}")
        for each in getattr(package, "__all__", []):
            value = getattr(package, each)
            plain = sorted(value) if isinstance(value, set | frozenset) else repr(value)
            found[f"{name}.{each}"] = getattr(value, "__module__", plain)
    from lerobot.configs import PreTrainedConfig

    return found | {"choices": sorted(PreTrainedConfig.get_known_choices())}


def main(what: str, *paths: str) -> None:
    deferred_imports.install()
    if what == "names":
        print(json.dumps(names()))
        return
    from lerobot.configs import PreTrainedConfig

    from getiaction.policies.lerobot import making, quirks  # noqa: F401 - what a server needs

    light, dataset, directory = map(Path, paths)
    making.load_native(light)
    print("heavy", [name for name in HEAVY if name in sys.modules])
    print("others", "pi0" in PreTrainedConfig.get_known_choices())
    print(json.dumps(policies(dataset, directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
