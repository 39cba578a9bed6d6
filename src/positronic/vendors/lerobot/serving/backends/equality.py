"""Numerical error of a backend: largest difference from LeRobot's policy in float32."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.vendors.lerobot.serving.backends import examples
from positronic.vendors.lerobot.serving.backends.base import Backend
from positronic.vendors.lerobot.serving.backends.examples import Observations
from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint

# Random observations of each kind: within the training's range, at its ends, beyond them.
_DRAWN = 4


class Reference:
    """Reference actions of LeRobot's policy for the example observations in the checkpoint.

    A checkpoint without examples, as LeRobot's own training writes it, gets synthetic ones from its
    statistics: random ones, and black and white images with states at the edges. Further ones are
    drawn at random each time: the author of an export beside a checkpoint could have fitted it to
    the checkpoint's examples.

    Attributes:
        batches: Observations, stacked.
        real: Whether they are of the dataset.
    """

    def __init__(
        self, checkpoint: Checkpoint, features: dict[str, Any], eager: TorchBackend
    ) -> None:
        found = examples.load(checkpoint.path, features)
        self.real = found is not None
        self.batches = _alone_and_together(found) if found else _made_up(checkpoint)
        self._drawn = drawn(checkpoint, features, np.random.default_rng())
        self._expected_of_drawn = eager.predict_chunk(self._drawn)
        self._expected = [eager.predict_chunk(batch) for batch in self.batches]
        self._scale = _scale(eager, self._expected)

    def difference(self, backend: Backend) -> float:
        """Return the largest difference of any action, relative to its scale; NaN is infinite."""
        found = [backend.predict_chunk(batch) for batch in self.batches]
        pairs = zip(self._expected, found, strict=True)
        return self._worst(pairs)

    def difference_on_drawn(self, backend: Backend) -> float:
        """Return the same for observations that nobody could predict: random and extreme ones."""
        return self._worst([(self._expected_of_drawn, backend.predict_chunk(self._drawn))])

    def _worst(self, pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float:
        worst = max(float((np.abs(a - b) / self._scale).max()) for a, b in pairs)
        return worst if np.isfinite(worst) else float("inf")

    def batch_of(self, size: int) -> Observations:
        """Return a batch of ``size`` of the observations, repeated if necessary."""
        rows = {key: np.concatenate([b[key] for b in self.batches]) for key in self.batches[0]}
        return {key: np.resize(array, (size, *array.shape[1:])) for key, array in rows.items()}


def drawn(
    checkpoint: Checkpoint, features: Mapping[str, Any], rng: np.random.Generator
) -> Observations:
    """Draw a random batch: within the training's range, at its ends, and well beyond them.

    Args:
        checkpoint: Its statistics are the training's range; without them it is -1 to 1.
        features: Features of its codec, by key.
        rng: The random number generator.
    """
    observations: Observations = {}
    for key, feature in features.items():
        shape = tuple(feature["shape"])
        if len(shape) == 3:
            noise = rng.integers(0, 256, (_DRAWN, *shape), dtype=np.uint8)
            flat = rng.integers(0, 256, (_DRAWN, 1, 1, shape[-1]), dtype=np.uint8)
            ends = np.array([0, 255], np.uint8)[rng.integers(0, 2, (_DRAWN, 1, 1, 1))]
            images = (noise, *(np.broadcast_to(each, noise.shape) for each in (flat, ends)))
            observations[key] = np.concatenate(images)
        else:
            known = checkpoint.statistics.get(key, {})
            low, high = (
                np.broadcast_to(known.get(name, np.full(shape, end)).astype(np.float64), shape)
                for name, end in (("min", -1.0), ("max", 1.0))
            )
            parts = [rng.uniform(0, 1, (_DRAWN, *shape)), rng.integers(0, 2, (_DRAWN, *shape))]
            parts.append(rng.uniform(-1, 2, (_DRAWN, *shape)))
            observations[key] = (low + np.concatenate(parts) * (high - low)).astype(np.float32)
    return observations


def _alone_and_together(rows: Observations) -> list[Observations]:
    count = len(next(iter(rows.values())))
    alone = [{key: array[i : i + 1] for key, array in rows.items()} for i in range(count)]
    return [*alone, rows]


def _made_up(checkpoint: Checkpoint) -> list[Observations]:
    # Imports Lightning, which takes seconds.
    from getiaction.export.exporter import observations
    from getiaction.export.graph import Graph, inputs_of
    from getiaction.policies.lerobot import LeRobotPolicy

    policy = LeRobotPolicy.from_pretrained(checkpoint.path, trust_checkpoint=checkpoint.trusted)
    inputs = inputs_of(policy, "uint8")
    made = observations(Graph(policy, inputs), inputs)
    return [{key: _channels_last(array) for key, array in batch.items()} for batch in made]


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _scale(eager: TorchBackend, expected: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return (A,): each action's change per unit of network output, or its largest magnitude."""
    import torch

    size = expected[0].shape[-1]
    low, high = (eager.post(torch.full((1, size), value)).cpu().numpy()[0] for value in (0.0, 1.0))
    largest = np.max([np.abs(chunk).max(axis=(0, 1)) for chunk in expected], axis=0)
    scale: NDArray[np.float32] = np.maximum(np.abs(high - low), largest)
    return np.maximum(scale, np.finfo(np.float32).tiny)
