from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from getiaction.config import FromConfig, find_class, instantiate_obj
from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.base import Policy
from getiaction.policies.lerobot import ACT
from getiaction.train import Trainer
from tests.getiaction.train.runs import SMALL

HERE = __name__
PART: dict[str, Any] = {
    "class_path": f"{HERE}.Part",
    "init_args": {"args": [1, 2], "name": "made"},
}


class Part:
    def __init__(self, *sizes: int, name: str = "part") -> None:
        self.sizes, self.name = sizes, name


class Whole(FromConfig):
    def __init__(self, size: int, parts: Any = None) -> None:
        self.size, self.parts = size, parts


class Larger(Whole):
    pass


@dataclass
class WholeFields:
    size: int = 3
    parts: list[Any] = field(default_factory=lambda: [PART])


class WholeModel(BaseModel):
    size: int = 4
    parts: Any = None


def test_arguments_of_the_class_itself() -> None:
    whole = Whole.from_dict({"size": 2, "parts": {"a": [PART], "b": 5}})
    assert whole.size == 2
    assert whole.parts["b"] == 5
    (part,) = whole.parts["a"]
    assert isinstance(part, Part)
    assert part.sizes == (1, 2)
    assert part.name == "made"


def test_class_path_and_init_args_name_a_subclass() -> None:
    config = {"class_path": f"{HERE}.Larger", "init_args": {"size": 1, "parts": PART}}
    made = Whole.from_dict({"model": config}, key="model")
    assert type(made) is Larger
    assert isinstance(made.parts, Part)
    # A bare name is one of the module of the class that is asked.
    assert type(Whole.from_dict({"class_path": "Larger", "init_args": {"size": 1}})) is Larger


def test_every_form(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(f"whole: {{size: 9, parts: {{class_path: {HERE}.Part, init_args: {{}}}}}}")
    for made in (
        Whole.from_yaml(path, key="whole"),
        Whole.from_config(path, key="whole"),
        Whole.from_config(str(path), key="whole"),
    ):
        assert made.size == 9
        assert isinstance(made.parts, Part)
    assert isinstance(Whole.from_dataclass(WholeFields()).parts[0], Part)
    assert Whole.from_config(WholeFields()).size == 3
    assert Whole.from_pydantic(WholeModel(parts={"n": PART})).parts["n"].name == "made"
    assert Whole.from_config(WholeModel()).size == 4
    assert Whole.from_config({"size": 5}).size == 5
    assert Whole.from_config({"inner": WholeFields(7, [])}, key="inner").size == 7
    assert instantiate_obj({"part": PART}, key="part").name == "made"
    assert instantiate_obj({"class_path": f"{HERE}.Part"}).sizes == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sise": 2}, r"^Whole refuses its arguments: .*'sise'"),
        ({"class_path": f"{HERE}.Part", "init_args": {}}, r"gives a Part; expected a Whole$"),
        ({"class_path": "nowhere.Whole", "init_args": {}}, r"^'nowhere.Whole' cannot be imported"),
        ({"class_path": f"{HERE}.Hole", "init_args": {}}, r"^there is no 'Hole' in .*test_config;"),
        ({"class_path": "Hole", "init_args": {}}, r"'package.module.Hole'$"),
        (
            {"class_path": f"{HERE}.Whole", "init_args": {"size": 1}, "size": 2},
            r"only 'init_args' is expected, not: size$",
        ),
        (3, r"^a int is not a configuration"),
    ],
)
def test_refusals_are_one_line(config: Any, message: str) -> None:
    with pytest.raises(GetiactionError, match=message) as caught:
        Whole.from_config(config)
    assert "\n" not in str(caught.value)


def test_refused_files_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(GetiactionError, match="cannot be read"):
        Whole.from_yaml(path)
    path.write_text("a: [1\nb: 2")
    with pytest.raises(GetiactionError, match="is not YAML") as caught:
        Whole.from_yaml(path)
    assert "\n" not in str(caught.value)
    path.write_text("- 1")
    with pytest.raises(GetiactionError, match="found a list; a configuration is a mapping"):
        Whole.from_yaml(path)
    path.write_text("model: {size: 1}")
    with pytest.raises(GetiactionError, match="has no 'modell'; it has: model$"):
        Whole.from_yaml(path, key="modell")
    with pytest.raises(GetiactionError, match="names no class: .* it has: size$"):
        instantiate_obj({"size": 1})


def test_a_class_of_its_own_path() -> None:
    assert find_class(f"{HERE}.Part") is Part
    assert find_class("Part", ("getiaction.errors", HERE)) is Part


def test_policies_data_and_trainers_are_made_so(state_root: Path) -> None:
    config = {
        "model": {"class_path": "getiaction.policies.lerobot.ACT", "init_args": SMALL},
        "data": {"root": str(state_root), "batch_size": 3},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    }
    policy = Policy.from_dict(config, key="model")
    assert isinstance(policy, ACT)
    assert policy.config.dim_model == SMALL["dim_model"]
    data = LeRobotDataModule.from_config(config, key="data")
    assert (data.root, data.train_batch_size) == (state_root, 3)
    assert Trainer.from_config(config, key="trainer").max_epochs == 2
