"""Model interface of the server: a loaded checkpoint that answers many sessions at once.

A request goes through three steps, so that the server can batch the dear one and the cheap ones
fail alone::

    observation ──prepare──▶ request ──predict (batched)──▶ prediction ──finish──▶ actions
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from positronic.errors import CheckpointError
from positronic.policy.base import Action, Policy, Session


class UnfitModel(CheckpointError):
    """A model whose weights or answers no robot should get; the next older one may be better."""


@runtime_checkable
class ModelSession(Session, Protocol):
    """A session whose inference comes in steps; its methods are called one at a time, in order.

    ``infer(obs)`` of it is ``prepare``, a batch of one, and ``finish``.
    """

    def prepare(self, obs: Mapping[str, Any]) -> Any:
        """Check and encode one observation, and remember what the policy looks back at.

        Returns:
            What ``Model.predict`` takes; None where the session still has actions to give.

        Raises:
            PositronicError: The observation does not fit; the session is as it was before.
        """

    def finish(self, prediction: Any) -> list[Action]:
        """Turn this session's prediction into actions; None where ``prepare`` returned None.

        The server calls it in its event loop, so it must not take longer than a few tenths of a
        millisecond.

        Raises:
            PositronicError: The prediction is no action.
        """


@runtime_checkable
class Model(Policy, Protocol):
    """A loaded checkpoint that answers several sessions at once."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its weights hold."""

    def new_session(self, context: Mapping[str, Any] | None = None) -> ModelSession:
        """Start an episode that shares the weights and nothing else."""

    def predict(self, requests: Sequence[Any]) -> Sequence[Any]:
        """Predict for requests of several sessions, in order; called in one thread at a time.

        Row i is what a batch of request i alone would give, within the model's tolerance.
        """
