"""Lightning callbacks: stop on a signal, gym evaluation, model checkpoint, early stopping."""

from getiaction.train.callbacks.evaluation import GymEvaluation
from getiaction.train.callbacks.monitors import EarlyStopping, ModelCheckpoint
from getiaction.train.callbacks.stopping import StopOnSignal

__all__ = ["EarlyStopping", "GymEvaluation", "ModelCheckpoint", "StopOnSignal"]
