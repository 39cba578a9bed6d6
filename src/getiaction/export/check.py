"""Compare an export with the policy that it was made of."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.export.graph import Graph, observed
from getiaction.export.inference import InferenceModel
from getiaction.export.manifest import Check, Manifest, Spec
from getiaction.policies.lerobot import LeRobotPolicy

# Of an action dimension's scale. Float32 differs by about 1e-6 when products are summed in another
# order; 1e-4 is far below what a robot repeats, and far above that.
TOLERANCE = 1e-4

type Observation = dict[str, NDArray[np.generic]]


def compare(
    directory: Path,
    policy: LeRobotPolicy,
    graph: Graph,
    inputs: tuple[Spec, ...],
    spread: NDArray[np.float32],
) -> Check:
    """Run the export in ``directory`` and the policy on the same observations.

    Args:
        directory: Of the export, complete but for its check.
        policy: In float32 on the CPU.
        graph: What was exported.
        inputs: The graph's inputs.
        spread: (A,) of each action dimension, in the dataset's units.

    Raises:
        GetiactionError: the actions differ by more than the tolerance, or are not finite.
    """
    model = InferenceModel(directory, Manifest.read(directory).backend, device="cpu")
    expected, found = [], []
    for observation in observations(graph, inputs):
        tensors = {key: torch.from_numpy(value) for key, value in observation.items()}
        expected.append(policy.predict_action_chunk(tensors).numpy())
        found.append(model.predict_action_chunk(observation))
    wanted, got = np.concatenate(expected), np.concatenate(found)
    if not np.isfinite(wanted).all():
        raise GetiactionError(
            "the policy's own actions are not finite numbers, so its export cannot be checked; "
            "look at its training, or export with check=False"
        )
    scale = np.maximum(spread, np.abs(wanted).max(axis=(0, 1)))
    measured = float((np.abs(wanted - got) / np.maximum(scale, np.finfo(np.float32).tiny)).max())
    if not measured <= TOLERANCE:
        raise GetiactionError(
            f"the export's actions differ from the policy's by {measured:.2g} of their scale; at "
            f"most {TOLERANCE:g} is accepted: try another backend, or export with check=False"
        )
    return Check(TOLERANCE, measured, len(expected))


def observations(graph: Graph, inputs: tuple[Spec, ...]) -> Iterator[Observation]:
    """Yield observations of batches of 1 to 3: random ones, and those at the edges.

    States lie around the dataset's, some far out of it; images are noise, black and white.
    """
    rng = np.random.default_rng(0)
    for batch in (1, 2, 3):
        yield {spec.key: _random(graph, spec, batch, rng) for spec in inputs}
    for sigma, pixel in ((0.0, 0), (5.0, 255), (-5.0, 0), (1.0, 255), (-1.0, 255)):
        yield {spec.key: _edge(graph, spec, sigma, pixel) for spec in inputs}


def _random(graph: Graph, spec: Spec, batch: int, rng: np.random.Generator) -> NDArray[np.generic]:
    shape = (batch, *spec.shape)
    if spec.range is not None:
        return _as_image(rng.integers(0, 256, shape, dtype=np.uint8), spec)
    return observed(graph, spec.key, torch.from_numpy(rng.normal(0, 1, shape)).float()).numpy()


def _edge(graph: Graph, spec: Spec, sigma: float, pixel: int) -> NDArray[np.generic]:
    shape = (1, *spec.shape)
    if spec.range is not None:
        return _as_image(np.full(shape, pixel, dtype=np.uint8), spec)
    return observed(graph, spec.key, torch.full(shape, sigma)).numpy()


def _as_image(pixels: NDArray[np.uint8], spec: Spec) -> NDArray[np.generic]:
    if spec.dtype == "uint8":
        return pixels
    return pixels.astype(np.float32) / np.float32(255)
