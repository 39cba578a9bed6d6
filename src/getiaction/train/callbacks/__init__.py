"""Callbacks: ending when told to, rollouts' settings, and which way a metric is better."""

from getiaction.train.callbacks.evaluation import GymEvaluation
from getiaction.train.callbacks.monitors import EarlyStopping, ModelCheckpoint
from getiaction.train.callbacks.stopping import StopOnSignal

__all__ = ["EarlyStopping", "GymEvaluation", "ModelCheckpoint", "StopOnSignal"]
