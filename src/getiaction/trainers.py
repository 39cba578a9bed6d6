"""Trainers by framework, and complete configurations that choose one by ``trainer_type``.

::

    trainer_type: lerobot
    trainer: {class_path: LeRobotTrainer, init_args: {max_epochs: 100, learning_rate: 1e-4}}
    model: {policy_type: act, dim_model: 512}
    data: {repo_id: lerobot/aloha_sim_transfer_cube_human}
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import EpisodeAwareSampler
from lerobot.utils.constants import LAST_CHECKPOINT_LINK
from lightning.pytorch import seed_everything

from foundation.text import did_you_mean
from foundation.writable import require_writable
from getiaction.config import CLASS_PATH, as_dict, instantiate_obj
from getiaction.data import LeRobotDataModule
from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import LeRobotPolicy
from getiaction.policies.lerobot.configs import policy_config, with_learning_rate
from getiaction.train.base import BaseTrainer
from getiaction.train.trainer import Trainer

LightningTrainer = Trainer
"""Another name of :class:`getiaction.train.Trainer`."""

__all__ = ["BaseTrainer", "LeRobotTrainer", "LightningTrainer", "run_config"]

# Modules in which class names without a module are looked up.
PLACES = ("getiaction.trainers", "getiaction.policies.lerobot", "getiaction.data")
PARTS = ("trainer_type", "seed_everything", "trainer", "model", "data")


class LeRobotTrainer(BaseTrainer):
    """Trainer that runs LeRobot's own loop, ``lerobot-train``, instead of Lightning's.

    Args:
        max_epochs: Epochs, instead of ``steps``.
        steps: Steps to train; LeRobot's default unless either is given.
        learning_rate: Replaces the policy's ``optimizer_lr``.
        batch_size: Samples per step; LeRobot's default unless given.
        output_dir: Directory of checkpoints; by date and time below ``outputs/train`` unless given.
        device: ``cpu`` or ``cuda``; ``cuda`` if available unless given.
        **options: Further fields of LeRobot's ``TrainPipelineConfig``, e.g. ``seed``.

    Raises:
        GetiactionError: an option that LeRobot does not have, or both ``max_epochs`` and ``steps``.
    """

    def __init__(
        self,
        *,
        max_epochs: int | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        output_dir: str | Path | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        if max_epochs is not None and steps is not None:
            raise GetiactionError(
                f"give either max_epochs or steps, not both: {max_epochs} and {steps}"
            )
        allowed = {f.name for f in dataclasses.fields(TrainPipelineConfig) if f.init}
        for name in options:
            if name not in allowed - {"dataset", "policy"}:
                meant = did_you_mean(name, allowed)
                raise GetiactionError(f"lerobot-train has no option {name!r}{meant}")
        given = {"steps": steps, "batch_size": batch_size}
        self.options = options | {name: n for name, n in given.items() if n is not None}
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")

    def fit(
        self,
        policy_type: str = "act",
        dataset_repo: str | None = None,
        root: str | Path | None = None,
        **policy_fields: Any,
    ) -> Path:
        """Train a policy on a dataset.

        Args:
            policy_type: LeRobot's name of the policy.
            dataset_repo: The dataset's name on the hub; with ``root`` it is only a label.
            root: The dataset's local directory.
            **policy_fields: Fields of the policy's config.

        Returns:
            The run's directory ``checkpoints/last``, in LeRobot's layout.

        Raises:
            GetiactionError: an unknown policy or field, or a dataset that cannot be read.
            OSError: the output directory is not writable; raised before training.
        """
        # Imports all of LeRobot's environments, which takes seconds.
        from lerobot.scripts import lerobot_train

        require_writable(self.output_dir or "outputs/train")
        policy: Any = policy_config(policy_type, policy_fields)
        policy = with_learning_rate(policy, self.learning_rate)
        policy.device = self.device
        data = LeRobotDataModule(repo_id=dataset_repo, root=root)
        dataset = DatasetConfig(
            data.repo_id,
            root=None if root is None else str(root),
            video_backend=data.video_backend,
        )
        config = TrainPipelineConfig(
            dataset=dataset, policy=policy, output_dir=self.output_dir, **self.options
        )
        if self.max_epochs is not None:
            config.steps = self.max_epochs * math.ceil(_samples(data, policy) / config.batch_size)
        # Accelerate keeps the precision of a process's first run, and refuses another one.
        AcceleratorState._reset_state(True)
        lerobot_train.train(config)
        assert config.output_dir is not None
        return Path(config.output_dir, "checkpoints", LAST_CHECKPOINT_LINK)


def run_config(config: Any) -> BaseTrainer:
    """Train by a configuration with ``trainer_type``.

    Args:
        config: Path of a YAML file, or a mapping, with ``trainer_type`` (``lightning`` or
            ``lerobot``), ``trainer``, ``model`` and ``data``, and perhaps ``seed_everything``. A
            class may be named without its module if it is one of this package. For LeRobot, the
            model is its ``policy_type`` and fields, and the data ``repo_id`` or ``root`` or both.

    Returns:
        The trainer, after training.

    Raises:
        GetiactionError: a part is missing, unknown or refused.
    """
    parts = as_dict(config)
    for name in parts:
        if name not in PARTS:
            raise GetiactionError(f"there is no {name!r} here; expected: {', '.join(PARTS)}")
    kinds: dict[str, Any] = {"lightning": LightningTrainer, "lerobot": LeRobotTrainer}
    kind = parts.get("trainer_type")
    if kind not in kinds:
        raise GetiactionError(f"trainer_type is {kind!r}; expected: {' or '.join(kinds)}")
    for name in ("model", "data"):
        if not isinstance(parts.get(name), Mapping):
            raise GetiactionError(f"the configuration has no {name!r}, or it is not a mapping")
    if parts.get("seed_everything") is not None:
        seed_everything(parts["seed_everything"], verbose=False)
    trainer: Any = _make(parts.get("trainer") or {}, kinds[kind])
    if not isinstance(trainer, kinds[kind]):
        raise GetiactionError(
            f"trainer_type is {kind!r}, but the trainer is a {type(trainer).__name__}"
        )
    if isinstance(trainer, LeRobotTrainer):
        data = dict(parts["data"])
        where = {"dataset_repo": data.pop("repo_id", None), "root": data.pop("root", None)}
        if data:
            raise GetiactionError(
                f"LeRobotTrainer takes the data's repo_id and root, not: {', '.join(data)}"
            )
        trainer.fit(**parts["model"], **where)
    else:
        data = _make(parts["data"], LeRobotDataModule)
        trainer.fit(_make(parts["model"], LeRobotPolicy), datamodule=data)
    done: BaseTrainer = trainer
    return done


def _make(part: Mapping[str, Any], otherwise: type[Any]) -> Any:
    """Instantiate the class of ``part``, or ``otherwise`` with its arguments if it names none."""
    if CLASS_PATH in part:
        return instantiate_obj(part, search=PLACES)
    arguments = {CLASS_PATH: f"{otherwise.__module__}.{otherwise.__name__}", "init_args": part}
    return instantiate_obj(arguments, search=PLACES)


def _samples(data: LeRobotDataModule, policy: Any) -> int:
    """Return the number of samples in one epoch of LeRobot."""
    episodes = data.meta.episodes
    return len(
        EpisodeAwareSampler(
            episodes["dataset_from_index"],
            episodes["dataset_to_index"],
            drop_n_last_frames=getattr(policy, "drop_n_last_frames", 0),
        )
    )
