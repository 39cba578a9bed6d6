import pytest
from lerobot.configs import NormalizationMode

from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import ACT, LeRobotPolicy, policy_config


def test_fields_are_converted_as_lerobot_converts_them() -> None:
    config = policy_config("act", {"optimizer_lr": 1, "normalization_mapping": {"ENV": "MIN_MAX"}})
    assert config.optimizer_lr == 1.0
    assert config.normalization_mapping == {"ENV": NormalizationMode.MIN_MAX}
    assert config.push_to_hub is False


def test_a_mistyped_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(GetiactionError, match=r"no field 'dim_modle' \(did you mean 'dim_model'\?"):
        ACT(dim_modle=3)


def test_a_mistyped_policy_is_refused_with_the_nearest() -> None:
    with pytest.raises(GetiactionError, match=r"no policy 'difusion'.*did you mean 'diffusion'"):
        LeRobotPolicy("difusion")


@pytest.mark.parametrize(
    "fields",
    [{"n_action_steps": 30, "chunk_size": 20}, {"dim_model": "wide"}, {"vision_backbone": "vit"}],
)
def test_values_that_lerobot_refuses_are_said_in_one_line(fields: dict[str, object]) -> None:
    with pytest.raises(GetiactionError, match="policy 'act' refuses its fields: .+"):
        policy_config("act", fields)


def test_keywords_and_config_kwargs_mean_the_same() -> None:
    assert (
        ACT(chunk_size=7, n_action_steps=7).config
        == ACT(config_kwargs={"chunk_size": 7, "n_action_steps": 7}).config
    )


def test_config_and_fields_together_are_refused() -> None:
    with pytest.raises(GetiactionError, match="either a config or its fields"):
        LeRobotPolicy("act", config=policy_config("act"), dim_model=3)
