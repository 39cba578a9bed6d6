"""Trace a policy, with its normalisation, as one graph, and write it for each runtime."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.utils.constants import OBS_STATE
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from getiaction.errors import GetiactionError
from getiaction.export.manifest import EXPORTABLE, FILES, NEEDS, OUTPUT, Spec
from getiaction.export.runtimes import openvino, require
from getiaction.policies.lerobot import LeRobotPolicy

# Steps that a graph does not need: its inputs are batches, and its runtime chooses the device.
_LEFT_OUT = (AddBatchDimensionProcessorStep, DeviceProcessorStep)
_TRACED = (RenameObservationsProcessorStep, NormalizerProcessorStep, UnnormalizerProcessorStep)


class Graph(nn.Module):
    """Module to export: images to float32, LeRobot's preprocessing, network and postprocessing.

    Steps and network are the policy's own, so that their formulas are not duplicated.
    """

    network: Any

    def __init__(self, policy: LeRobotPolicy, inputs: tuple[Spec, ...]) -> None:
        super().__init__()
        self.network = copy.deepcopy(policy.lerobot_policy)
        _fold_norms(self.network)
        self.keys = [spec.key for spec in inputs]
        self.before = _traced_steps(policy.preprocessor)
        self.after = _traced_steps(policy.postprocessor)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the actions (B, T, A) for tensors in the order of the inputs."""
        observation = {
            key: value.to(torch.float32) / 255.0 if value.dtype == torch.uint8 else value
            for key, value in zip(self.keys, tensors, strict=True)
        }
        transition: Any = {TransitionKey.OBSERVATION: observation}
        for step in self.before:
            transition = step(transition)
        actions = self.network.predict_action_chunk(transition[TransitionKey.OBSERVATION])
        transition = {TransitionKey.ACTION: actions}
        for step in self.after:
            transition = step(transition)
        result: Tensor = transition[TransitionKey.ACTION]
        return result


class Traced:
    """A policy traced as one program, from which exports for several backends are written.

    The expensive parts are done once: tracing the policy, and converting that to ONNX for backends
    that need it.

    Args:
        policy: The policy, which is not changed.
        image_dtype: Dtype of the graph's images: ``float32`` in [0, 1], or ``uint8``.
        opset: ONNX opset version; torch's recommended one unless given.

    Raises:
        GetiactionError: the policy cannot be exported.
    """

    def __init__(
        self, policy: LeRobotPolicy, image_dtype: str = "float32", opset: int | None = None
    ) -> None:
        exportable(policy)
        self.twin = on_cpu(policy)
        self.inputs = inputs_of(self.twin, image_dtype)
        self.graph = Graph(self.twin, self.inputs)
        self.opset = opset

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The traced program, for any batch size."""
        return trace(self.graph, self.inputs)

    @cached_property
    def onnx_program(self) -> Any:
        """The traced program as torch's ``ONNXProgram``."""
        names = [spec.key for spec in self.inputs]
        with _quietly():
            return torch.onnx.export(
                self.program,
                input_names=names,
                output_names=[OUTPUT],
                opset_version=self.opset,
                verbose=False,
            )

    def save_onnx(self, file: Path) -> None:
        """Write the ONNX program as one file, including the weights."""
        with _quietly():
            self.onnx_program.save(file, external_data=False)


def exportable(policy: LeRobotPolicy) -> None:
    """Refuse a policy that :class:`Graph` cannot represent.

    Raises:
        GetiactionError: a policy that is not in ``EXPORTABLE``, has no network yet, or has other
            processor steps.
    """
    name = policy.config.type
    if name not in EXPORTABLE:
        raise GetiactionError(
            f"policy {name!r} cannot be exported: its actions are not one pass through a network; "
            f"export knows: {', '.join(EXPORTABLE)}"
        )
    if policy.lerobot_policy is None:
        raise GetiactionError(
            "there is nothing to export before the policy was made; fit it, load it, or call "
            "create(meta)"
        )
    if policy.config.robot_state_feature is None:
        raise GetiactionError(f"LeRobot's {name!r} cannot act without {OBS_STATE!r}")
    for step in [*policy.preprocessor.steps, *policy.postprocessor.steps]:
        if not isinstance(step, _TRACED + _LEFT_OUT):
            raise GetiactionError(
                f"the policy's processor {type(step).__name__} cannot be exported; export knows: "
                f"{', '.join(known.__name__ for known in _TRACED + _LEFT_OUT)}"
            )


def on_cpu(policy: LeRobotPolicy) -> LeRobotPolicy:
    """Return a copy of the policy in float32 on the CPU."""
    twin = policy.session()
    twin.lerobot_policy = copy.deepcopy(policy.lerobot_policy).to("cpu", torch.float32).eval()
    for name in ("preprocessor", "postprocessor"):
        pipeline = copy.deepcopy(getattr(policy, name))
        pipeline.steps = [_step_on_cpu(step) for step in pipeline.steps]
        setattr(twin, name, pipeline)
    return twin


def inputs_of(policy: LeRobotPolicy, image_dtype: str) -> tuple[Spec, ...]:
    """Return the network's inputs, in the order of the config's features."""
    raw_names: dict[str, str] = {}
    for step in policy.preprocessor.steps:
        if isinstance(step, RenameObservationsProcessorStep):
            raw_names |= {new: old for old, new in step.rename_map.items()}
    specs = []
    for key, feature in policy.config.input_features.items():
        shape = tuple(feature.shape)
        if feature.type is FeatureType.VISUAL:
            limits = (0.0, 255.0) if image_dtype == "uint8" else (0.0, 1.0)
            specs.append(Spec(raw_names.get(key, key), shape, image_dtype, limits))
        elif feature.type is FeatureType.ENV or key == OBS_STATE:
            specs.append(Spec(raw_names.get(key, key), shape))
    return tuple(specs)


def trace(graph: Graph, inputs: tuple[Spec, ...]) -> torch.export.ExportedProgram:
    """Return the graph as a program for any batch size."""
    # torch.export would treat a batch of one as a constant.
    examples = tuple(
        torch.zeros(2, *spec.shape, dtype=getattr(torch, spec.dtype)) for spec in inputs
    )
    batch = torch.export.Dim("batch")
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns about its own use of its tree utilities.
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        return torch.export.export(
            graph, examples, dynamic_shapes=(tuple({0: batch} for _ in inputs),), strict=False
        )


def action_spread(graph: Graph, size: int) -> Tensor:
    """Return (A,): each action's change per unit of network output."""
    low, high = (
        _through(graph.after, TransitionKey.ACTION, torch.full((1, size), value))
        for value in (0.0, 1.0)
    )
    spread: Tensor = (high - low).abs()[0]
    return spread


def observed(graph: Graph, key: str, normalised: Tensor) -> Tensor:
    """Return the raw values of ``key`` that the graph normalises to about ``normalised``."""
    value = {key: normalised}
    for step in graph.before:
        if isinstance(step, RenameObservationsProcessorStep):
            value = {step.rename_map.get(name, name): tensor for name, tensor in value.items()}
    for step in reversed(graph.before):
        if isinstance(step, NormalizerProcessorStep):
            inverse = UnnormalizerProcessorStep(
                features=step.features,
                norm_map=step.norm_map,
                stats=step.stats,
                eps=step.eps,
                normalize_observation_keys=step.normalize_observation_keys,
            )
            value = _through([inverse], TransitionKey.OBSERVATION, value)
    raw: Tensor = next(iter(value.values()))
    return raw


class _Affine(nn.Module):
    """A frozen batch normalisation, folded into a constant scale and bias.

    Otherwise half of the nodes of a graph with two cameras would compute those at every pass.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        self.register_buffer("scale", scale.reshape(1, -1, 1, 1))
        self.register_buffer("bias", bias.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply scale and bias: the same operations in the same order."""
        return x * self.scale + self.bias


def _fold_norms(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, FrozenBatchNorm2d):
                setattr(parent, name, _Affine(child))


def _traced_steps(pipeline: Any) -> list[Any]:
    return [step for step in pipeline.steps if isinstance(step, _TRACED)]


def _step_on_cpu(step: Any) -> Any:
    if isinstance(step, DeviceProcessorStep):
        return DeviceProcessorStep(device="cpu")
    if isinstance(step, NormalizerProcessorStep | UnnormalizerProcessorStep):
        step.to("cpu", torch.float32)
    return step


def _through(steps: list[Any], key: TransitionKey, value: Any) -> Any:
    transition: Any = {key: value}
    for step in steps:
        transition = step(transition)
    return transition[key]


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence log messages and warnings of torch's exporter about its own internals."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def require_all(backend: str) -> None:
    """Refuse early if a package that exports for ``backend`` need is not installed.

    Raises:
        GetiactionError: names the extra that installs it.
    """
    for package in NEEDS[backend]:
        openvino() if package == "openvino" else require(package, backend)


def save(traced: Traced, backend: str, directory: Path) -> None:
    """Write the files of ``backend`` into ``directory``."""
    if backend == "torch":
        torch.export.save(traced.program, directory / FILES["torch"][0])
        return
    onnx_file = directory / FILES["onnx"][0]
    traced.save_onnx(onnx_file)
    if backend == "openvino":
        _save_openvino(onnx_file, directory / FILES["openvino"][0])
        onnx_file.unlink()


def _save_openvino(onnx_file: Path, file: Path) -> None:
    vino = openvino()
    model = vino.Core().read_model(onnx_file)
    _keep_differences_apart(model)
    # By default OpenVINO compresses weights to float16.
    vino.save_model(model, file, compress_to_fp16=False)


def _keep_differences_apart(model: Any) -> None:
    """Stop OpenVINO from turning (x - mean) / std into x * (1 / std) - mean / std.

    These two terms are huge and almost equal where the dataset hardly varies, and their difference
    is then mostly rounding error: with a std of 0, to which LeRobot adds 1e-8, actions differed by
    their own size.
    """
    vino = openvino()
    limit = float(np.finfo(np.float32).max)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Subtract":
            continue
        if node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        readers = list(node.output(0).get_target_inputs())
        same = vino.opset13.clamp(node.output(0), -limit, limit)
        for reader in readers:
            reader.replace_source_output(same.output(0))
