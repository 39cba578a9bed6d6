import dataclasses
import importlib.util
import inspect
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonargparse import ArgumentError, ArgumentParser
from lerobot.configs import NormalizationMode, PreTrainedConfig

from getiaction.errors import GetiactionError
from getiaction.policies import lerobot
from getiaction.policies.base import Policy
from getiaction.policies.lerobot import ACT, Diffusion, LeRobotPolicy, named
from tests.getiaction.policies.lerobot.small import actions, make

SCRIPT = Path(__file__).parents[4] / "scripts" / "policy_stubs.py"
EVERY = sorted(PreTrainedConfig.get_known_choices())
# Their configs need packages that are not here, or they are not trained from datasets.
NOT_HERE = {"eo1", "gaussian_actor"}


def class_of(policy_name: str) -> type[LeRobotPolicy]:
    config_class = PreTrainedConfig.get_choice_class(policy_name)
    found: type[LeRobotPolicy] = getattr(lerobot, named.class_name(config_class))
    return found


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Policy, "model")
    return parser


def parsed(parser: ArgumentParser, class_path: str, **init_args: Any) -> LeRobotPolicy:
    """As LightningCLI does, from what a YAML file holds."""
    path = f"getiaction.policies.lerobot.{class_path}"
    config = parser.parse_object({"model": {"class_path": path, "init_args": init_args}})
    # Through text, as with --print_config and back.
    config = parser.parse_string(parser.dump(config))
    made: LeRobotPolicy = parser.instantiate(config).model
    return made


@pytest.mark.parametrize("name", EVERY)
def test_every_policy_has_a_class_that_takes_its_fields(name: str) -> None:
    made = class_of(name)
    assert issubclass(made, LeRobotPolicy)
    assert name == made.POLICY_NAME
    assert made.__module__ == "getiaction.policies.lerobot"
    assert pickle.loads(pickle.dumps(made)) is made
    config_class = PreTrainedConfig.get_choice_class(name)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    settings = inspect.signature(made).parameters
    assert fields.keys() - settings.keys() <= {
        *("input_features", "output_features", "device", "push_to_hub"),
        *named.HUB_FIELDS,
    }
    for key in settings.keys() & fields.keys() - named.COMMON.keys():
        field = fields[key]
        if field.default_factory is not dataclasses.MISSING:
            assert settings[key].default == field.default_factory()
        else:
            assert settings[key].default == field.default
        assert settings[key].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", sorted(set(EVERY) - NOT_HERE))
def test_every_class_is_made_from_a_file_without_settings(
    name: str, parser: ArgumentParser
) -> None:
    """Every default goes through the parser, and is LeRobot's again."""
    made = parsed(parser, class_of(name).__name__)
    assert type(made) is class_of(name)
    assert made.config == LeRobotPolicy(name).config


def test_settings_are_flat_and_plain_in_a_file(parser: ArgumentParser) -> None:
    made = parsed(
        parser,
        "ACT",
        chunk_size=20,
        hidden_dim=64,
        learning_rate=1e-4,
        replace_final_stride_with_dilation=True,
        normalization_mapping={"STATE": "MIN_MAX", "ACTION": "MEAN_STD", "VISUAL": "IDENTITY"},
        config_kwargs={"n_heads": 4},
    )
    assert isinstance(made, ACT)
    assert made.config.chunk_size == made.config.n_action_steps == 20
    assert made.config.dim_model == 64
    assert made.config.n_heads == 4
    assert made.config.optimizer_lr == made.optimizer_config.lr == 1e-4
    assert made.config.replace_final_stride_with_dilation == 1
    assert made.config.normalization_mapping["STATE"] is NormalizationMode.MIN_MAX


@pytest.mark.parametrize(
    ("init_args", "said"),
    [({"horizn": 8}, "horizn"), ({"horizon": "long"}, "horizon"), ({"down_dims": 3}, "down_dims")],
)
def test_files_are_checked(parser: ArgumentParser, init_args: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        parsed(parser, "Diffusion", **init_args)


def test_optimizers_in_a_file(parser: ArgumentParser) -> None:
    made = parsed(
        parser,
        "Diffusion",
        optimizer={
            "class_path": "lerobot.optim.optimizers.AdamWConfig",
            "init_args": {"lr": 0.5},
        },
        total_steps=7,
    )
    assert made.optimizer_config.lr == 0.5
    assert made.optimizer_config.type == "adamw"
    assert made.total_steps == 7


def test_a_mistyped_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(GetiactionError, match=r"'horizn' \(did you mean 'horizon'\?\)"):
        Diffusion(horizn=8)  # type: ignore[call-arg]


def test_two_names_for_one_thing() -> None:
    with pytest.raises(GetiactionError, match="'hidden_dim' is another name of 'dim_model'"):
        ACT(hidden_dim=64, dim_model=32)
    with pytest.raises(GetiactionError, match="'hidden_dim'"):
        Diffusion(hidden_dim=64)  # type: ignore[call-arg]


def test_a_config_of_the_same_policy_is_taken() -> None:
    config = ACT(dim_model=32).config
    assert ACT(config=config).config is config
    with pytest.raises(GetiactionError, match="of policy 'act', not of 'diffusion'"):
        Diffusion(config=config)


def test_an_instance_goes_to_another_process(camera_root: Path) -> None:
    policy = make(camera_root, "act")
    twin = pickle.loads(pickle.dumps(policy))
    assert (actions(twin) == actions(policy)).all()


def test_the_stub_is_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("policy_stubs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.STUB.read_text() == script.stub()
