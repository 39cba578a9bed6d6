"""Training under Lightning: the trainer, native checkpoints and the report of its speed."""

from getiaction.train.checkpoint import NativeCheckpoint
from getiaction.train.precision import precision_of
from getiaction.train.report import StepReport
from getiaction.train.resume import NativeResume
from getiaction.train.trainer import Trainer

LightningTrainer = Trainer
"""Another name of :class:`Trainer`, beside ``LeRobotTrainer``."""

__all__ = [
    "LightningTrainer",
    "NativeCheckpoint",
    "NativeResume",
    "StepReport",
    "Trainer",
    "precision_of",
]
