"""Trainer base class: a class with ``fit`` that a configuration can instantiate."""

from abc import ABC, abstractmethod
from typing import Any

from getiaction.config import FromConfig


class BaseTrainer(FromConfig, ABC):
    """Trains a policy with the framework of the subclass."""

    @abstractmethod
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train."""
