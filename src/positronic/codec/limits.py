"""Limits on encoded observations: refuse numbers that only a wrong unit explains."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from positronic.codec.base import Codec
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


# A wrong unit multiplies a signal by 57 (degrees for radians), 100 (centimetres, per cent), 255 or
# 1000 (millimetres); a robot that goes astray stays within ten times what training saw.
MARGIN = 10.0
# Where a signal hardly moved in training, as if it had: metres, radians, or parts of a grip.
SMALLEST = 0.1


class Limits:
    """Bounds of observations and actions: the largest magnitude of each element let through.

    It is `MARGIN` times the largest one that training saw anywhere in the same signal (the three
    axes of a position share a unit, as seven joints do), and `SMALLEST` counts as seen. So a
    robot may be where training never was; only magnitudes are looked at, no ranges.
    """

    def __init__(self, limits: Mapping[str, NDArray[Any]], origins: Mapping[str, Any]) -> None:
        """Take the limits, float32 ``(n,)`` for each feature, and the codec's ``origins``."""
        self._limits = dict(limits)
        self._origins = origins

    @classmethod
    def of(cls, codec: Codec, stats: Mapping[str, Mapping[str, Any]]) -> Self:
        """From the statistics of a dataset or checkpoint; features without min and max are free.

        Raises:
            CodecError: statistics of a feature are of another size, or not finite with the margin.
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
        """Refuse one encoded observation that is beyond the limits.

        Raises:
            CodecError: naming the raw signal, what it holds, and what training saw.
        """
        for feature, limit in self._limits.items():
            if (np.abs(encoded[feature]) > limit).any():
                self._refuse(feature, encoded[feature])

    def _refuse(self, feature: str, value: NDArray[Any]) -> None:
        limit = self._limits[feature]
        worst = int(np.argmax(np.abs(value) / limit))
        name = self._origins[feature][worst]
        raise CodecError(
            f"signal '{name}' gives {value[worst]:.4g} ({feature}, element {worst}), expected at"
            f" most {limit[worst]:.3g}: training saw nothing beyond {limit[worst] / MARGIN:.3g};"
            " send it in the unit of the recordings"
        )


def _magnitudes(feature: str, least: Any, most: Any, size: int) -> NDArray[np.float64]:
    ends = [np.abs(np.asarray(end, dtype=np.float64)).ravel() for end in (least, most)]
    if any(len(end) != size for end in ends):
        raise CodecError(
            f"the statistics of {feature} are of {len(ends[0])} and {len(ends[1])} numbers,"
            f" expected {size}; take the checkpoint from its training run"
        )
    seen: NDArray[np.float64] = np.maximum(*ends)
    if not (seen <= np.finfo(np.float32).max / MARGIN).all():  # a NaN would let everything through
        raise CodecError(
            f"the statistics of {feature} hold a value that is not finite, or as good as that;"
            " take the checkpoint from its training run"
        )
    return seen
