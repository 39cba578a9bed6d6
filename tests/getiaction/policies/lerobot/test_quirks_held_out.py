import copy

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class

from getiaction.policies.lerobot import policy_config
from getiaction.policies.lerobot.quirks import without_trace
from tests.getiaction.train.runs import POLICIES


@pytest.mark.parametrize("policy_name", ["diffusion", "vqbet"])
def test_it_leaves_the_policy_and_the_random_numbers_as_they_were(policy_name: str) -> None:
    fields = {**POLICIES[policy_name], "crop_shape": None}
    if policy_name == "vqbet":
        # The next forward pass would be the last of the first phase.
        fields["n_vqvae_training_steps"] = 1
    config = policy_config(policy_name, fields)
    config.input_features = {
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 48, 48)),
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    }
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    policy = get_policy_class(policy_name)(config)
    length = len(config.action_delta_indices)
    batch = {
        "observation.image": torch.rand(3, 2, 3, 48, 48),
        "observation.state": torch.rand(3, 2, 2),
        "action": torch.rand(3, length, 2),
        "action_is_pad": torch.zeros(3, length, dtype=torch.bool),
    }
    before = copy.deepcopy(policy)
    random_state = torch.get_rng_state()
    losses = []
    for _ in range(2):
        with without_trace(policy), torch.inference_mode():
            losses.append(policy.forward(dict(batch))[0])
    assert torch.equal(*losses)
    assert torch.equal(torch.get_rng_state(), random_state)
    for (name, module), twin in zip(policy.named_modules(), before.modules(), strict=True):
        assert module.training == twin.training, name
        assert getattr(module, "optimized_steps", 0) == 0, name
    for name, weight in before.state_dict().items():
        assert torch.equal(policy.state_dict()[name], weight), name
    for parameter, twin in zip(policy.parameters(), before.parameters(), strict=True):
        assert parameter.requires_grad == twin.requires_grad
    # Outside, it leaves traces.
    loss, _ = policy.forward(dict(batch))
    loss.backward()
    if policy_name == "vqbet":
        assert policy.vqbet.action_head.vqvae_model.discretized
    else:
        assert not torch.equal(torch.get_rng_state(), random_state)
