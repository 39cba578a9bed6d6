"""Callbacks: settings and lines for rollouts, and Lightning's own knowing which way is better."""

from getiaction.train.callbacks.evaluation import GymEvaluation
from getiaction.train.callbacks.monitors import EarlyStopping, ModelCheckpoint

__all__ = ["EarlyStopping", "GymEvaluation", "ModelCheckpoint"]
