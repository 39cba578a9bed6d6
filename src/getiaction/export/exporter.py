"""Export a policy for a runtime: checked against the policy, and written atomically."""

import importlib
import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.files import sha256_of
from getiaction.errors import GetiactionError
from getiaction.export.graph import (
    Graph,
    Traced,
    action_spread,
    exportable,
    observed,
    require_all,
    save,
)
from getiaction.export.inference import InferenceModel
from getiaction.export.manifest import FILES, MANIFEST, NEEDS, OUTPUT, Check, Manifest, Spec
from getiaction.policies.lerobot import LeRobotPolicy

# As a fraction of an action dimension's scale. Float32 differs by about 1e-6 when products are
# summed in another order; 1e-4 is far above that, and far below a robot's repeatability.
TOLERANCE = 1e-4

type Observation = dict[str, NDArray[np.generic]]


UNFINISHED = ".unfinished-"


def compare(
    directory: Path,
    policy: LeRobotPolicy,
    graph: Graph,
    inputs: tuple[Spec, ...],
    spread: NDArray[np.float32],
) -> Check:
    """Run the export in ``directory`` and the policy on the same observations.

    Args:
        directory: Directory of the export, complete except for its check.
        policy: The policy, in float32 on the CPU.
        graph: The exported graph.
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

    States lie around the dataset's values, some far outside their range; images are noise, black
    and white.
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


def export(
    policy: LeRobotPolicy,
    path: str | Path,
    backend: str = "onnx",
    *,
    opset: int | None = None,
    check: bool = True,
    overwrite: bool = False,
    image_dtype: str = "float32",
    fps: float | None = None,
    source: str | None = None,
) -> Path:
    """Write a policy as one graph, from raw observations to actions in the dataset's units.

    The graph is float32, takes any batch size, and holds the normalisation with its statistics. It
    computes in evaluation mode; the policy itself is not changed. :class:`InferenceModel` runs the
    export.

    Args:
        policy: A LeRobot policy whose chunk is one pass through a network: ``act``.
        path: A directory for the model's files and ``manifest.json``, which appears atomically.
        backend: ``onnx`` (``model.onnx``), ``openvino`` (``model.xml``, ``model.bin``) or ``torch``
            (``model.pt2``, of ``torch.export``).
        opset: ONNX opset version; torch's recommended one unless given.
        check: Run the export and refuse it if its actions differ from the policy's by more than
            1e-4 of their scale.
        overwrite: Replace an earlier export at ``path``.
        image_dtype: Dtype of the graph's images: ``float32`` in [0, 1], or ``uint8``.
            :class:`InferenceModel` converts uint8 to float32, not the other way round.
        fps: Actions per second; that of the trainer's dataset unless given.
        source: Recorded in the manifest to identify the export, such as a digest of the checkpoint.

    Returns:
        ``path``.

    Raises:
        GetiactionError: the policy cannot be exported, a package is missing, ``path`` is taken, or
            the check failed. Nothing is left behind.
    """
    if image_dtype not in ("float32", "uint8"):
        raise GetiactionError(f"image_dtype is {image_dtype!r}; expected 'float32' or 'uint8'")
    if opset is not None and backend == "torch":
        raise GetiactionError("opset belongs to ONNX; leave it out for backend 'torch'")
    final = _target(path, backend, overwrite)
    exportable(policy)
    require_all(backend)
    traced = Traced(policy, image_dtype, opset)
    fps = fps if fps is not None else _fps(policy)
    return write(traced, final, backend, check=check, overwrite=overwrite, fps=fps, source=source)


def write(
    traced: Traced,
    path: str | Path,
    backend: str = "onnx",
    *,
    check: bool = True,
    overwrite: bool = False,
    fps: float | None = None,
    source: str | None = None,
) -> Path:
    """Write a traced policy for one backend; other arguments as in :func:`export`.

    Raises:
        GetiactionError: a package is missing, ``path`` is taken, or the check failed. Nothing is
            left behind.
    """
    final = _target(path, backend, overwrite)
    require_all(backend)
    unfinished = final.with_name(f"{UNFINISHED}{final.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write(traced, unfinished, backend, check, fps, source)
        _put(unfinished, final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final


def _write(
    traced: Traced,
    directory: Path,
    backend: str,
    check: bool,
    fps: float | None,
    source: str | None,
) -> None:
    save(traced, backend, directory)
    config = traced.twin.config
    (actions,) = config.action_feature.shape
    manifest = Manifest(
        policy_type=config.type,
        backend=backend,
        inputs=traced.inputs,
        outputs=(Spec(OUTPUT, (config.chunk_size, actions)),),
        chunk_size=config.chunk_size,
        n_action_steps=config.n_action_steps,
        temporal_ensemble_coeff=config.temporal_ensemble_coeff,
        fps=fps,
        check=None,
        versions=_versions(backend),
        files={name: sha256_of(directory / name) for name in FILES[backend]},
        source=source,
    )
    manifest.write(directory)
    if check:
        spread = action_spread(traced.graph, actions).numpy()
        compared = compare(directory, traced.twin, traced.graph, traced.inputs, spread)
        replace(manifest, check=compared).write(directory)


def _target(path: str | Path, backend: str, overwrite: bool) -> Path:
    if backend not in FILES:
        raise GetiactionError(f"unknown backend {backend!r}; export knows: {', '.join(FILES)}")
    final = Path(path)
    _refuse_taken(final, overwrite)
    return final


def _refuse_taken(final: Path, overwrite: bool) -> None:
    if not os.path.lexists(final):
        return
    if not overwrite:
        raise GetiactionError(
            f"{final} exists; choose another directory, or replace an export with overwrite=True"
        )
    if final.is_symlink() or not (final / MANIFEST).is_file():
        raise GetiactionError(
            f"{final} is not an export, so it is not replaced; choose another one"
        )


def _put(unfinished: Path, final: Path) -> None:
    if not final.exists():
        os.rename(unfinished, final)
        return
    old = final.with_name(f"{UNFINISHED}old-{final.name}")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(final, old)
    try:
        os.rename(unfinished, final)
    except OSError:
        os.rename(old, final)
        raise
    shutil.rmtree(old)


def _fps(policy: LeRobotPolicy) -> float | None:
    try:
        trainer: Any = policy.trainer
    except RuntimeError:  # Lightning's, for a module without a trainer
        return None
    meta = getattr(getattr(trainer, "datamodule", None), "meta", None)
    return None if meta is None else float(meta.fps)


def _versions(backend: str) -> dict[str, str]:
    ours = "positronic-lightning"
    # By module, since a runtime may come from another distribution, such as onnxruntime-gpu.
    modules = [importlib.import_module(name) for name in ("torch", "lerobot", *NEEDS[backend])]
    return {ours: importlib.metadata.version(ours)} | {
        module.__name__: str(module.__version__) for module in modules
    }
