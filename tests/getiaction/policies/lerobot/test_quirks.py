from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import LeRobotPolicy
from tests.getiaction.policies.lerobot.small import NAMES, actions, make, observation

ENSEMBLE = {"temporal_ensemble_coeff": 0.01, "n_action_steps": 1}
WAYS = [*((name, {}) for name in NAMES), ("act", ENSEMBLE)]
IDS = [*NAMES, "ensemble"]


class Episode:
    """An episode with random numbers of its own, as rollouts have them."""

    def __init__(self, policy: LeRobotPolicy, seed: int) -> None:
        self.policy = policy
        self.seed = seed
        self.step = 0
        self.random = torch.Generator().manual_seed(seed).get_state()

    def act(self) -> Tensor:
        with torch.random.fork_rng():
            torch.set_rng_state(self.random)
            action = self.policy.select_action(observation(100 * self.seed + self.step))
            self.random = torch.get_rng_state()
        self.step += 1
        return action


@pytest.mark.parametrize(("name", "fields"), WAYS, ids=IDS)
def test_sessions_do_not_disturb_each_other(
    camera_root: Path, name: str, fields: dict[str, Any]
) -> None:
    policy = make(camera_root, name, **fields)
    alone = []
    for seed in (1, 2):
        episode = Episode(policy.session(), seed)
        alone.append(torch.cat([episode.act() for _ in range(6)]))
    assert not torch.equal(*alone)
    # The policy itself is in the midst of an episode of its own.
    begun = Episode(policy, 3)
    first = [begun.act() for _ in range(2)]
    first_session, second_session = policy.session(), policy.session()
    episodes = [Episode(first_session, 1), Episode(second_session, 2)]
    acted: list[list[Tensor]] = [[], []]
    # Out of step, so that queues run empty at different times.
    for turn in (0, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1):
        acted[turn].append(episodes[turn].act())
    for together, expected in zip(acted, alone, strict=True):
        assert torch.equal(torch.cat(together), expected)
    rest = [begun.act() for _ in range(4)]
    other = Episode(policy.session(), 3)
    assert torch.equal(torch.cat(first + rest), torch.cat([other.act() for _ in range(6)]))


@pytest.mark.parametrize("name", NAMES)
def test_sessions_share_the_weights(camera_root: Path, name: str) -> None:
    policy = make(camera_root, name)
    session = policy.session()
    own = dict(policy.named_parameters())
    for key, weight in session.named_parameters():
        assert weight is own[key]


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_what_is_acted_out(camera_root: Path, name: str) -> None:
    policy = make(camera_root, name)
    policy.reset()
    policy.lerobot_policy.eval()
    for step in range(3):
        # Of something that is not what is acted on next.
        policy.predict_action_chunk(observation(99, batch=2))
        torch.manual_seed(step)
        plan = policy.predict_action_chunk(observation(step, batch=2))
        assert plan.ndim == 3
        assert plan.shape[::2] == (2, 8)
        session = policy.session()
        # Planning has left no trace, and with the same past the same is done.
        for earlier in range(step):
            torch.manual_seed(0)
            session.select_action(observation(earlier, batch=2))
        _empty_actions(session)
        torch.manual_seed(step)
        assert torch.equal(session.select_action(observation(step, batch=2)), plan[:, 0])
        torch.manual_seed(0)
        policy.select_action(observation(step, batch=2))


def _empty_actions(policy: LeRobotPolicy) -> None:
    native = policy.lerobot_policy
    queue = native._queues["action"] if hasattr(native, "_queues") else native._action_queue
    queue.clear()


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_dataset_bring_their_past_along(camera_root: Path, name: str) -> None:
    """Planned from a batch as from the same frames seen one after the other."""
    policy = make(camera_root, name)
    data = LeRobotDataModule(root=camera_root, train_batch_size=3)
    data.prepare(policy.config)
    batch = next(iter(data.predict_dataloader()))
    expected_past = [d for d in policy.config.observation_delta_indices or [0] if d <= 0]
    # An episode under way is neither used nor disturbed.
    actions(policy, steps=3)
    torch.manual_seed(0)
    planned = policy.predict_action_chunk(dict(batch))
    session = policy.session()
    for at in range(len(expected_past)):
        seen = {
            key: batch[key][:, at] if policy.config.observation_delta_indices else batch[key]
            for key in ("observation.state", "observation.images.top")
        }
        _empty_actions(session)
        torch.manual_seed(0)
        acted = session.select_action({**seen, "task": batch["task"]})
    assert torch.equal(acted, planned[:, 0])


def test_a_missing_camera_is_refused(camera_root: Path) -> None:
    policy = make(camera_root, "act")
    seen = observation(0)
    seen["observation.images.front"] = seen.pop("observation.images.top")
    for method in (policy.select_action, policy.predict_action_chunk):
        with pytest.raises(
            GetiactionError, match=r"no 'observation.images.top' among.*got.*images.front"
        ):
            method(seen)


def test_frames_may_be_bytes(camera_root: Path) -> None:
    policy = make(camera_root, "act")
    seen = observation(0)
    as_bytes = (seen["observation.images.top"] * 255).round().to(torch.uint8)
    floats = as_bytes.float() / 255
    one = policy.predict_action_chunk({**seen, "observation.images.top": as_bytes})
    other = policy.predict_action_chunk({**seen, "observation.images.top": floats})
    assert torch.equal(one, other)


def test_a_policy_that_was_not_made_cannot_act() -> None:
    with pytest.raises(GetiactionError, match="cannot act before"):
        LeRobotPolicy("act").select_action(observation(0))
