"""Run an exported policy with numpy and its runtime: no LeRobot, and torch only for ``torch``."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from getiaction.errors import GetiactionError
from getiaction.export.manifest import Manifest
from getiaction.export.runtimes import RUNTIMES

type Actions = NDArray[np.float32]


class InferenceModel:
    """A policy that :func:`getiaction.export.export` wrote.

    Observations are those of the policy: LeRobot's keys with a batch dimension, in the dataset's
    units; images float32 (B, 3, H, W) in [0, 1] or uint8. Unknown keys are ignored. Actions come
    out in the dataset's units.

    Args:
        export_dir: The directory that ``export`` wrote.
        backend: ``auto``, or the backend expected of the export. ``torch`` is never chosen by
            ``auto``, since what torch loads can run any code.
        device: ``auto``, an accelerator if the runtime has one and otherwise the CPU; or the
            runtime's own name of a device, e.g. ``cpu`` or ``cuda``.
        threads: Threads of a pass on the CPU, except with torch; one per core unless given.
        precision: ``float32``, or ``bf16`` with OpenVINO, whose actions then differ by about a
            hundredth of their scale.

    Raises:
        GetiactionError: it is not an export, is newer or damaged, is for another backend, or is for
            torch without ``backend="torch"``; or the runtime, device or precision is not available.
    """

    def __init__(
        self,
        export_dir: str | Path,
        backend: str = "auto",
        device: str = "auto",
        *,
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        directory = Path(export_dir)
        self.manifest = Manifest.read(directory)
        if backend not in ("auto", self.manifest.backend):
            raise GetiactionError(
                f"{directory} is an export for {self.manifest.backend!r}, not for {backend!r}; "
                "leave backend='auto', or export again"
            )
        if self.manifest.backend == "torch" and backend != "torch":
            raise GetiactionError(
                f"{directory} is an export for 'torch', and torch runs code that such a file holds "
                "when it loads it; give backend='torch' if you trust whoever made it, or export "
                "for 'onnx' or 'openvino'"
            )
        self.manifest.verify(directory)
        self._runtime = RUNTIMES[self.manifest.backend](directory, device, threads, precision)
        self.reset()

    @classmethod
    def load(cls, export_dir: str | Path, backend: str = "auto", device: str = "auto") -> Self:
        """The same as the constructor."""
        return cls(export_dir, backend, device)

    def __call__(self, observation: Mapping[str, Any]) -> Actions:
        """The same as :meth:`predict_action_chunk`."""
        return self.predict_action_chunk(observation)

    def predict_action_chunk(self, observation: Mapping[str, Any]) -> Actions:
        """Return the planned actions (B, T, A).

        Raises:
            GetiactionError: the observation lacks a key, or has one of another shape or dtype.
        """
        inputs = self.manifest.inputs
        missing = [spec.key for spec in inputs if spec.key not in observation]
        if missing:
            raise GetiactionError(
                f"the observation lacks {', '.join(missing)}; it has: "
                f"{', '.join(observation) or 'nothing'}"
            )
        arrays = {spec.key: spec.accept(observation[spec.key]) for spec in inputs}
        sizes = {key: len(array) for key, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{key}: {size}" for key, size in sizes.items())
            raise GetiactionError(f"the observation has batches of different sizes ({listed})")
        return self._runtime.run(arrays)

    def select_action(self, observation: Mapping[str, Any]) -> Actions:
        """Return the next action (B, A).

        As the policy's own: it predicts when the last chunk's ``n_action_steps`` actions have been
        played, or each time for a policy with temporal ensembling.
        """
        coefficient = self.manifest.temporal_ensemble_coeff
        if coefficient is not None:
            self._chunks.append(self.predict_action_chunk(observation))
            return ensemble(list(self._chunks), coefficient)
        if not self._queue:
            chunk = self.predict_action_chunk(observation)
            self._queue.extend(chunk[:, : self.manifest.n_action_steps].swapaxes(0, 1))
        return self._queue.popleft()

    def reset(self) -> None:
        """Start a new episode: clear the queue of actions and the chunks to ensemble."""
        self._queue: deque[Actions] = deque()
        self._chunks: deque[Actions] = deque(maxlen=self.manifest.chunk_size)


def ensemble(chunks: list[Actions], coefficient: float) -> Actions:
    """Return the weighted mean of the last chunks' actions for the present step.

    The weight of the i-th oldest is exp(-coefficient * i): algorithm 2 of Zhao et al. 2023,
    "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware".

    Args:
        chunks: One (B, T, A) for each of the last steps, at most T of them, the oldest first.
        coefficient: Positive values favour old plans, negative ones new plans.

    Returns:
        (B, A).
    """
    ages = range(len(chunks) - 1, -1, -1)
    planned = np.stack([chunk[:, age] for chunk, age in zip(chunks, ages, strict=True)])
    weights = np.exp(-coefficient * np.arange(len(chunks)))
    mean: Actions = np.einsum("n,nba->ba", weights / weights.sum(), planned).astype(np.float32)
    return mean
