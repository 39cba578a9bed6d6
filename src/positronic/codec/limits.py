"""Limits on observations and actions: reject values that only a wrong unit explains."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec
from positronic.errors import CodecError


class ActionLimits:
    """Largest allowed magnitude of each element of an action, like `Limits` of observations.

    `MARGIN` times the largest magnitude of the element in the training data, or `SMALLEST` if that
    is larger: a robot may leave the range of the training data, but not by two hundred metres.
    """

    def __init__(self, limits: NDArray[np.float32] | None) -> None:
        """Take the limits (A,); with None only finiteness is checked."""
        self._limits = limits

    @classmethod
    def of(cls, stats: Mapping[str, NDArray[Any]]) -> Self:
        """Create from the statistics of the action; without min and max there is no limit."""
        if "min" not in stats or "max" not in stats:
            return cls(None)
        seen = np.maximum(np.abs(stats["min"]), np.abs(stats["max"])).ravel()
        return cls(np.maximum(seen, SMALLEST).astype(np.float32) * np.float32(MARGIN))

    def check(self, actions: NDArray[np.float32]) -> None:
        """Check actions (T, A), in the dataset's units, against the limits.

        Raises:
            CodecError: the message has the element, its value, and the range in training.
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
                f" {row}, expected at most {limit:.3g}: in training the largest was"
                f" {limit / MARGIN:.3g}; no action is sent, choose another checkpoint"
            )


# A wrong unit multiplies a signal by 57 (degrees for radians), 100 (centimetres, per cent), 255 or
# 1000 (millimetres); a badly controlled robot stays within ten times the range in training.
MARGIN = 10.0
# For signals that hardly moved in training: metres, radians, or share of the grip's range.
SMALLEST = 0.1


class Limits:
    """Bounds of observations and actions: the largest magnitude of each element let through.

    `MARGIN` times the largest magnitude of the same signal in the training data (the three axes of
    a position share a unit, as seven joints do), or `SMALLEST` if that is larger. So a robot may
    leave the range of the training data; only magnitudes are checked.
    """

    def __init__(self, limits: Mapping[str, NDArray[Any]], origins: Mapping[str, Any]) -> None:
        """Take the limits, float32 ``(n,)`` per feature, and the codec's ``origins``."""
        self._limits = dict(limits)
        self._origins = origins

    @classmethod
    def of(cls, codec: Codec, stats: Mapping[str, Mapping[str, Any]]) -> Self:
        """Create from the statistics of a dataset or checkpoint; min and max are optional.

        Raises:
            CodecError: a feature's statistics have another size, or are not finite with the margin.
        """
        limits: dict[str, NDArray[Any]] = {}
        for feature, origins in codec.origins.items():
            known = stats.get(feature, {})
            if "min" in known and "max" in known:
                seen = _magnitudes(feature, known["min"], known["max"], len(origins))
                largest = {name: max(seen[np.array(origins) == name]) for name in set(origins)}
                seen = np.array([max(largest[name], SMALLEST) for name in origins], np.float32)
                limits[feature] = seen * np.float32(MARGIN)
        return cls(limits, codec.origins)

    def check(self, encoded: Mapping[str, NDArray[Any]]) -> None:
        """Check one encoded observation against the limits.

        Raises:
            CodecError: the message has the raw signal, its value, and the range in training.
        """
        for feature, limit in self._limits.items():
            if (np.abs(encoded[feature]) > limit).any():
                self._refuse(feature, encoded[feature])

    def _refuse(self, feature: str, value: NDArray[Any]) -> None:
        limit = self._limits[feature]
        worst = int(np.argmax(np.abs(value) / limit))
        name = self._origins[feature][worst]
        raise CodecError(
            f"signal '{name}' is {value[worst]:.4g} ({feature}, element {worst}), expected at"
            f" most {limit[worst]:.3g}: in training the largest was {limit[worst] / MARGIN:.3g};"
            " send it in the unit of the recordings"
        )


def _magnitudes(feature: str, least: Any, most: Any, size: int) -> NDArray[np.float64]:
    ends = [np.abs(np.asarray(end, dtype=np.float64)).ravel() for end in (least, most)]
    if any(len(end) != size for end in ends):
        raise CodecError(
            f"the statistics of {feature} have {len(ends[0])} and {len(ends[1])} numbers,"
            f" expected {size}; take the checkpoint from its training run"
        )
    seen: NDArray[np.float64] = np.maximum(*ends)
    if not (seen <= np.finfo(np.float32).max / MARGIN).all():  # NaN would disable the check
        raise CodecError(
            f"the statistics of {feature} have a value that is not finite, or is too large;"
            " take the checkpoint from its training run"
        )
    return seen
