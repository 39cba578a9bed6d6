import copy
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from getiaction.train.precision import CachedAutocast, FastAutocast, precision_plugin


class Eye(nn.Module):
    """A convolution, a frozen normalisation and a layer, as backbones and heads have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = FrozenBatchNorm2d(8)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)
        self.norm.weight.uniform_(0.5, 2)
        self.norm.bias.uniform_(-1, 1)
        self.head = nn.Linear(8, 2)
        self.seen: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = self.norm(self.conv(images)).relu()
        result: torch.Tensor = self.head(self.seen.mean((2, 3)))
        return result


@pytest.fixture
def eye() -> Eye:
    torch.manual_seed(2)
    return Eye()


def gradients(eye: Eye, plugin: CachedAutocast, images: torch.Tensor) -> list[torch.Tensor]:
    eye.zero_grad()
    with plugin.autocast_context_manager():
        loss = eye(images).float().square().mean()
    loss.backward()
    return [weight.grad for weight in eye.parameters() if weight.grad is not None]


def test_bfloat16_keeps_to_itself_and_gives_nearly_the_same(eye: Eye) -> None:
    images = torch.rand(4, 3, 10, 10)
    expected = gradients(eye, CachedAutocast("bf16-mixed", "cpu"), images)
    assert eye.seen is not None
    assert eye.seen.dtype == torch.float32
    plugin = FastAutocast("cpu")
    plugin.convert_module(eye)
    found = gradients(eye, plugin, images)
    assert eye.seen.dtype == torch.bfloat16
    assert eye.seen.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.03, atol=0.01)
    # What is saved is laid out as ever.
    assert all(weight.is_contiguous() for weight in eye.parameters())
    assert set(eye.state_dict()) == set(Eye().state_dict())


def test_a_module_is_left_as_it_was(eye: Eye) -> None:
    images = torch.rand(4, 3, 10, 10)
    expected = eye(images)
    plugin = FastAutocast("cpu")
    plugin.convert_module(eye)
    plugin.teardown()
    assert torch.equal(eye(images), expected)
    assert type(eye.norm) is FrozenBatchNorm2d
    assert eye.seen is not None
    assert eye.seen.is_contiguous()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_optimizer_goes_over_each_weight_once(eye: Eye, kind: Any) -> None:
    twin = copy.deepcopy(eye)
    images = torch.rand(4, 3, 10, 10)
    for module in (eye, twin):
        optimizer = kind(module.parameters(), lr=0.01, weight_decay=0.1)
        if module is eye:
            FastAutocast("cpu").connect(eye, [optimizer], [])
            assert optimizer.param_groups[0]["fused"]
        for _ in range(3):
            optimizer.zero_grad()
            module(images).square().mean().backward()
            optimizer.step()
    for ours, theirs in zip(eye.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_only_mixed_precision_differs_from_lightnings() -> None:
    assert precision_plugin("32-true", "cpu") is None
    assert isinstance(precision_plugin("bf16-mixed", "cpu"), FastAutocast)
    assert type(precision_plugin("16-mixed", "cpu")) is CachedAutocast


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    layer = nn.Sequential(nn.Dropout(p))
    FastAutocast("cpu").convert_module(layer)
    ones = torch.ones(1001, 999, dtype=torch.bfloat16, requires_grad=True)
    torch.manual_seed(3)
    found = layer(ones)
    # Five standard deviations of a million draws.
    assert (found == 0).float().mean().item() == pytest.approx(
        p, abs=5 * (p * (1 - p) / 1e6) ** 0.5
    )
    # In bfloat16 the factor itself is rounded.
    assert found.float().mean().item() == pytest.approx(1, abs=0.006)
    found.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, found)
    # Neither the same values each time, nor along either axis.
    again = layer(ones.detach())
    assert not torch.equal(again, found)
    for axis in (0, 1):
        share = (found == 0).float().mean(axis)
        assert share.std().item() == pytest.approx((p * (1 - p) / 1000) ** 0.5, rel=0.2)
    torch.manual_seed(3)
    assert torch.equal(layer(ones), found)


def test_dropout_leaves_the_rest_to_torch() -> None:
    values = torch.rand(50, 50)
    plain, fast = nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.3))
    plugin = FastAutocast("cpu")
    plugin.convert_module(fast)
    torch.manual_seed(4)
    expected = plain(values)
    torch.manual_seed(4)
    assert torch.equal(fast(values), expected)
    half = values.bfloat16()
    assert torch.equal(fast.eval()(half), half)
    plugin.teardown()
    assert type(fast[0]) is nn.Dropout
