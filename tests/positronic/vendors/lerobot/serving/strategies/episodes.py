"""Episodes as LeRobot's own loop plays them, and as sessions do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.codec import Codec
from positronic.vendors.lerobot.serving.policy import ServedPolicy, load_policy
from tests.positronic.vendors.lerobot.small_policy import observation

STEP = "checkpoints/000001/pretrained_model"
CROWD = 1000  # observations of one episode are this far from those of the next


def load(run: Path, **arguments: Any) -> ServedPolicy:
    policy: ServedPolicy = load_policy(checkpoints_dir=str(run), device="cpu", **arguments)
    return policy


def seen(episode: int, steps: int) -> list[dict[str, Any]]:
    return [observation(CROWD * episode + step, (48, 48)) for step in range(steps)]


def native_actions(
    run: Path, codec: Codec, observations: Sequence[Mapping[str, Any]], seed: int
) -> list[NDArray[np.float32]]:
    """What ``select_action`` gives at each step after ``torch.manual_seed(seed)``."""
    import torch
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.policies.utils import prepare_observation_for_inference

    from getiaction.policies.lerobot.quirks import accept_any_camera

    config = PreTrainedConfig.from_pretrained(run / STEP)
    policy: Any = get_policy_class(config.type).from_pretrained(run / STEP, config=config)
    if config.type == "tdmpc":  # LeRobot's own fails on a camera of another name than its
        accept_any_camera(policy)
    policy.reset()
    pre, post = make_pre_post_processors(config, str(run / STEP))
    actions = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for obs in observations:
            arrays = {key: np.array(value) for key, value in codec.encode(obs).items()}
            task = str(obs["task"])
            batch = prepare_observation_for_inference(arrays, torch.device("cpu"), task)
            actions.append(post(policy.select_action(pre(batch)))[0].numpy())
    return actions


def commands(policy: ServedPolicy, actions: NDArray[np.float32]) -> list[dict[str, Any]]:
    """What a session makes of actions (T, A)."""
    rows = policy.codec.decode_rows(actions)
    return [{**row, "timestamp": i / policy.contract.fps} for i, row in enumerate(rows)]


class Episode:
    """A session, and the actions in the dataset's units that it gave."""

    def __init__(self, policy: ServedPolicy, seed: int) -> None:
        self.policy = policy
        self.session = policy.new_session({"seed": seed})
        self.actions: list[NDArray[np.float32]] = []
        self.predictions = 0
        self._left: list[NDArray[np.float32]] = []

    def prepare(self, obs: Mapping[str, Any]) -> Any:
        return self.session.prepare(obs)

    def finish(self, prediction: Any) -> None:
        (action,) = self.session.finish(prediction)
        if prediction is not None:
            self.predictions += 1
            self._left = list(prediction.actions)
        self.actions.append(self._left.pop(0))
        (decoded,) = commands(self.policy, self.actions[-1][np.newaxis])
        np.testing.assert_equal(action, decoded)

    def step(self, obs: Mapping[str, Any]) -> None:
        request = self.prepare(obs)
        self.finish(None if request is None else self.policy.predict([request])[0])


def step_together(episodes: Sequence[Episode], observations: Sequence[Mapping[str, Any]]) -> int:
    """One step of all in one batch, of those that need one; returns its size."""
    requests = [e.prepare(obs) for e, obs in zip(episodes, observations, strict=True)]
    batch = [request for request in requests if request is not None]
    predictions = iter(episodes[0].policy.predict(batch) if batch else [])
    for episode, request in zip(episodes, requests, strict=True):
        episode.finish(None if request is None else next(predictions))
    return len(batch)
