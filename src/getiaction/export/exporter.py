"""Export a policy for a runtime: written whole, checked against the policy, or not at all."""

import importlib
import importlib.metadata
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.files import sha256_of
from getiaction.errors import GetiactionError
from getiaction.export.check import compare
from getiaction.export.graph import Traced, action_spread, exportable
from getiaction.export.manifest import FILES, MANIFEST, OUTPUT, Manifest, Spec
from getiaction.export.writers import NEEDS, require_all, save
from getiaction.policies.lerobot import LeRobotPolicy

UNFINISHED = ".unfinished-"


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
    is the policy in evaluation mode; the policy itself is left as it is. :class:`InferenceModel`
    runs the export.

    Args:
        policy: A LeRobot policy whose chunk is one pass through a network: ``act``.
        path: A directory that gets the model's files and ``manifest.json``. It appears as a whole.
        backend: ``onnx`` (``model.onnx``), ``openvino`` (``model.xml``, ``model.bin``) or ``torch``
            (``model.pt2``, of ``torch.export``).
        opset: ONNX's; what torch recommends unless given.
        check: Run the export and refuse it where its actions differ from the policy's by more than
            1e-4 of their scale.
        overwrite: Replace an earlier export at ``path``.
        image_dtype: What the graph takes: ``float32`` in [0, 1], or ``uint8``.
            :class:`InferenceModel` turns uint8 into float32, not the other way round.
        fps: Actions per second; that of the trainer's dataset unless given.
        source: Put into the manifest, to know the export again by: a digest of the checkpoint, say.

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
    """Write what was traced for one more backend; the rest as :func:`export`.

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
        raise GetiactionError(f"{final} is no export, so it is not replaced; choose another one")


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
    except RuntimeError:  # Lightning's, of a module that no trainer has
        return None
    meta = getattr(getattr(trainer, "datamodule", None), "meta", None)
    return None if meta is None else float(meta.fps)


def _versions(backend: str) -> dict[str, str]:
    ours = "positronic-lightning"
    # By module, since a runtime may be installed by another name, such as onnxruntime-gpu.
    modules = [importlib.import_module(name) for name in ("torch", "lerobot", *NEEDS[backend])]
    return {ours: importlib.metadata.version(ours)} | {
        module.__name__: str(module.__version__) for module in modules
    }
