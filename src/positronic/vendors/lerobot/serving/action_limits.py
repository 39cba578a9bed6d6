"""Limits on actions: none beyond ten times the range of training, or not finite, is sent."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from positronic.codec.limits import MARGIN, SMALLEST
from positronic.errors import CodecError


class ActionLimits:
    """The largest magnitude of each element of an action, as observations have them.

    It is `MARGIN` times the largest one that training saw in that element, and `SMALLEST` counts
    as seen: a robot may go where training never was, but not two hundred metres away.
    """

    def __init__(self, limits: NDArray[np.float32] | None) -> None:
        """Take the limits (A,); None where nothing is known but that actions are numbers."""
        self._limits = limits

    @classmethod
    def of(cls, stats: Mapping[str, NDArray[Any]]) -> Self:
        """From the statistics of the action; one without min and max is free."""
        if "min" not in stats or "max" not in stats:
            return cls(None)
        seen = np.maximum(np.abs(stats["min"]), np.abs(stats["max"])).ravel()
        return cls(np.maximum(seen, SMALLEST).astype(np.float32) * np.float32(MARGIN))

    def check(self, actions: NDArray[np.float32]) -> None:
        """Refuse actions (T, A), in the dataset's units, that are beyond the limits.

        Raises:
            CodecError: naming the element, what it is, and what training saw.
        """
        if not np.isfinite(actions).all():
            raise CodecError("the policy predicted actions that are not finite numbers")
        limits = self._limits
        if limits is None or actions.shape[-1:] != limits.shape:
            return
        if (np.abs(actions) > limits).any():
            row, element = np.unravel_index(np.argmax(np.abs(actions) / limits), actions.shape)
            limit = limits[element]
            raise CodecError(
                f"the policy predicted {actions[row, element]:.4g} for element {element} of action"
                f" {row}, expected at most {limit:.3g}: training saw nothing beyond"
                f" {limit / MARGIN:.3g}; no robot gets this, choose another checkpoint"
            )
