from pathlib import Path

import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.optim import AdamConfig
from lerobot.utils.feature_utils import dataset_to_policy_features

from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import ACT, LeRobotPolicy, policy_config
from tests.getiaction.policies.lerobot.small import actions, make, metadata, observation
from tests.getiaction.train.runs import POLICIES, SMALL


def test_fields_are_converted_as_lerobot_converts_them() -> None:
    config = policy_config("act", {"optimizer_lr": 1, "normalization_mapping": {"ENV": "MIN_MAX"}})
    assert config.optimizer_lr == 1.0
    assert config.normalization_mapping == {"ENV": NormalizationMode.MIN_MAX}
    assert config.push_to_hub is False


def test_a_mistyped_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(GetiactionError, match=r"no field 'dim_modle' \(did you mean 'dim_model'\?"):
        ACT(dim_modle=3)  # type: ignore[call-arg]


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


def test_the_chunk_alone_may_be_shortened() -> None:
    """The approaches document gives no ``n_action_steps``; LeRobot's default is 100."""
    config = ACT(hidden_dim=512, chunk_size=10, learning_rate=1e-4).config
    assert (config.chunk_size, config.n_action_steps) == (10, 10)
    assert policy_config("act", {"chunk_size": 200}).n_action_steps == 100


def test_a_learning_rate_is_the_configs() -> None:
    policy = LeRobotPolicy("diffusion", learning_rate=3e-4)
    assert policy.config.optimizer_lr == policy.optimizer_config.lr == 3e-4
    assert LeRobotPolicy("diffusion").optimizer_config.lr == 1e-4


def test_two_learning_rates_are_refused() -> None:
    with pytest.raises(GetiactionError, match="has a learning rate already"):
        LeRobotPolicy("act", learning_rate=1e-4, optimizer=AdamConfig())


def test_a_name_or_a_config_is_needed() -> None:
    with pytest.raises(GetiactionError, match="give a policy_name"):
        LeRobotPolicy()


class TestGivenFeatures:
    """As the documents have it: all of a dataset's features, given as inputs and as outputs."""

    def test_actions_come_out_and_the_rest_goes_in(self, camera_root: Path) -> None:
        meta = metadata(camera_root)
        features = dataset_to_policy_features(meta.features)
        torch.manual_seed(3)
        policy = ACT(
            input_features=features, output_features=features, stats=meta.stats, **POLICIES["act"]
        )
        assert set(policy.config.input_features) == {
            "observation.state",
            "observation.images.top",
        }
        assert set(policy.config.output_features) == {"action"}
        assert torch.equal(actions(policy), actions(make(camera_root, "act")))

    def test_plain_ones_are_understood(self, camera_root: Path) -> None:
        plain = {
            "observation.state": {"type": "STATE", "shape": [8]},
            "observation.images.top": {"type": "VISUAL", "shape": [3, 48, 48]},
            "action": {"type": "ACTION", "shape": [8]},
        }
        policy = LeRobotPolicy(
            "act", plain, plain, dataset_stats=metadata(camera_root).stats, **POLICIES["act"]
        )
        assert policy.select_action(observation(0)).shape == (1, 8)
        with pytest.raises(GetiactionError, match="feature 'action' is not a PolicyFeature"):
            LeRobotPolicy("act", plain, {"action": {"dtype": "float32", "shape": (8,)}})

    def test_statistics_are_needed_to_normalise(self, camera_root: Path) -> None:
        meta = metadata(camera_root)
        features = dataset_to_policy_features(meta.features)
        with pytest.raises(
            GetiactionError, match=r"no statistics of: observation.state, obs.*mean, std"
        ):
            ACT(input_features=features, output_features=features)
        for stats in meta.stats.values():
            stats.pop("max", None)
        with pytest.raises(GetiactionError, match=r"observation.state, action;.*max, mean, min"):
            LeRobotPolicy("diffusion", features, features, stats=meta.stats)

    def test_inputs_alone_choose_what_the_policy_sees(self, state_root: Path) -> None:
        meta = metadata(state_root)
        features = dataset_to_policy_features(meta.features)
        seen = {"observation.environment_state": features["observation.environment_state"]}
        policy = ACT(input_features=seen, **SMALL).create(meta)
        assert list(policy.config.input_features) == ["observation.environment_state"]

    def test_without_an_action(self) -> None:
        with pytest.raises(GetiactionError, match="no action among the output features"):
            ACT(input_features={}, output_features={})


def test_rewards_are_needed_by_tdmpc(state_root: Path) -> None:
    with pytest.raises(GetiactionError, match="learns from rewards.*no 'next.reward'"):
        LeRobotPolicy("tdmpc").create(metadata(state_root))
