"""Model interface of the server: a loaded checkpoint that answers many sessions at once.

A request goes through three steps, so that the server can batch the expensive one, and an invalid
request fails alone::

    observation ──prepare──▶ request ──predict (batched)──▶ prediction ──finish──▶ actions
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from positronic.errors import CheckpointError
from positronic.policy.base import Action, Policy, Session


class UnfitModel(CheckpointError):
    """A model whose weights or predictions are unusable; the next older one may be fit."""


@runtime_checkable
class ModelSession(Session, Protocol):
    """A session with inference in steps; its methods are called one at a time, in order.

    Its ``infer(obs)`` is ``prepare``, a batch of one, and ``finish``.
    """

    def prepare(self, obs: Mapping[str, Any]) -> Any:
        """Validate and encode one observation, and update the policy's history.

        Returns:
            A request for ``Model.predict``; None if the session still has actions of its chunk.

        Raises:
            PositronicError: The observation is invalid; the session is unchanged.
        """

    def finish(self, prediction: Any) -> list[Action]:
        """Return the actions of a prediction, which is None if ``prepare`` returned None.

        The server calls it in its event loop, so it must not take longer than a few tenths of a
        millisecond.

        Raises:
            PositronicError: The prediction is not a valid action.
        """


@runtime_checkable
class Model(Policy, Protocol):
    """A loaded checkpoint that answers several sessions at once."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its weights hold."""

    def new_session(self, context: Mapping[str, Any] | None = None) -> ModelSession:
        """Start an episode, which shares only the weights with others."""

    def predict(self, requests: Sequence[Any]) -> Sequence[Any]:
        """Predict for requests of several sessions, in order; called in one thread at a time.

        Prediction i equals that of request i in a batch of one, within the model's tolerance.
        """
