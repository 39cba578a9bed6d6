"""Trainer base class: something with ``fit`` that a configuration can name."""

from abc import ABC, abstractmethod
from typing import Any

from getiaction.config import FromConfig


class BaseTrainer(FromConfig, ABC):
    """Trains a policy by whatever framework it belongs to."""

    @abstractmethod
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train."""
