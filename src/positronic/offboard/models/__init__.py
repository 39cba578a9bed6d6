"""Model store of the server: loaded checkpoints that sessions share, with batched inference."""

from positronic.offboard.models.batching import Batching
from positronic.offboard.models.model import Model, ModelSession, UnfitModel
from positronic.offboard.models.store import Lease, ModelSource, ModelStatus, ModelStore

__all__ = [
    "Batching",
    "Lease",
    "Model",
    "ModelSession",
    "ModelSource",
    "ModelStatus",
    "ModelStore",
    "UnfitModel",
]
