"""A small policy, a gym that costs nothing, and a trainer that writes nothing unasked."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from lerobot.utils.random_utils import set_seed
from lightning.pytorch import Callback

from getiaction.data import LeRobotDataModule
from getiaction.gyms import GymnasiumGym
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.train import Trainer
from tests.getiaction.train.runs import BATCH, SEED, SMALL

# What a policy for the dataset `state_root` sees, and how it acts.
STATE, ENVIRONMENT, ACTION = 8, 10, 8


class Drift(gymnasium.Env[dict[str, Any], np.ndarray[Any, Any]]):
    """Numbers that actions push about; the reward is how far the first one is, success a small one.

    It draws from every global random stream, as other people's environments do.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    #: Overrides `success_below` of all, those made already too.
    threshold: float | None = None

    def __init__(
        self, success_below: float = 0.0, render_mode: str | None = None, tells: bool = True
    ) -> None:
        self.render_mode = render_mode
        self.success_below = success_below
        self.tells = tells
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (ACTION,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (STATE,), np.float32),
                "environment_state": gymnasium.spaces.Box(
                    -np.inf, np.inf, (ENVIRONMENT,), np.float32
                ),
            }
        )

    def _seen(self) -> dict[str, Any]:
        np.random.rand()
        torch.rand(())
        environment = np.resize(self.state, ENVIRONMENT)
        return {"agent_pos": self.state.copy(), "environment_state": environment}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.normal(0, 1, STATE).astype(np.float32)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.state += 0.1 * np.asarray(action, np.float32)
        reward = float(self.state[0])
        threshold = self.success_below if self.threshold is None else self.threshold
        success = reward < threshold
        return self._seen(), reward, success, False, {"is_success": success} if self.tells else {}

    def render(self) -> Any:
        return np.full((32, 32, 3), 100, np.uint8)


gymnasium.register("tests/Drift-v0", entry_point=f"{__name__}:Drift", max_episode_steps=4)


def drift(**options: Any) -> GymnasiumGym:
    return GymnasiumGym(
        "tests/Drift-v0",
        observation_keys={
            "agent_pos": "observation.state",
            "environment_state": "observation.environment_state",
        },
        **options,
    )


def data(root: Path, **options: Any) -> LeRobotDataModule:
    settings = {"train_batch_size": BATCH, "seed": SEED, "num_rollouts_val": 3, **options}
    return LeRobotDataModule(root=root, **settings)


def policy(**fields: Any) -> LeRobotPolicy:
    set_seed(SEED)
    return LeRobotPolicy("act", **{**SMALL, **fields})


def trainer(run_dir: Path, **options: Any) -> Trainer:
    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "max_epochs": 1,
        "default_root_dir": run_dir,
        **options,
    }
    return Trainer(**settings)


class Metrics(Callback):
    """Record what was logged at each validation, and each training loss."""

    def __init__(self) -> None:
        self.at_step: dict[int, dict[str, float]] = {}
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
        self.losses.append(outputs["loss"].item())

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        found = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.at_step[trainer.global_step] = found
