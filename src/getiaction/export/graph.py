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

# What a graph need not do: it is given batches, and runs where its runtime says.
_LEFT_OUT = (AddBatchDimensionProcessorStep, DeviceProcessorStep)
_TRACED = (RenameObservationsProcessorStep, NormalizerProcessorStep, UnnormalizerProcessorStep)


class Graph(nn.Module):
    """Images to float32, LeRobot's own preprocessing, network and postprocessing.

    The steps and the network are the policy's, so that there is no second copy of their formulas.
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
    """A policy as one program, from which exports for several backends are written.

    The dear part is done once: tracing the policy, and turning that into ONNX where one is asked
    for that comes from it.

    Args:
        policy: Is left as it is.
        image_dtype: What the graph takes: ``float32`` in [0, 1], or ``uint8``.
        opset: ONNX's; what torch recommends unless given.

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
        """For any batch size."""
        return trace(self.graph, self.inputs)

    @cached_property
    def onnx_program(self) -> Any:
        """The same as torch's ``ONNXProgram``."""
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
        """Write it as one file, weights and all."""
        with _quietly():
            self.onnx_program.save(file, external_data=False)


def exportable(policy: LeRobotPolicy) -> None:
    """Refuse what :class:`Graph` cannot hold.

    Raises:
        GetiactionError: another policy than those of ``EXPORTABLE``, one without a network yet, or
            one with processors of its own.
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
    """Return the policy in float32 on the CPU: a copy that leaves the original as it is."""
    twin = policy.session()
    twin.lerobot_policy = copy.deepcopy(policy.lerobot_policy).to("cpu", torch.float32).eval()
    for name in ("preprocessor", "postprocessor"):
        pipeline = copy.deepcopy(getattr(policy, name))
        pipeline.steps = [_step_on_cpu(step) for step in pipeline.steps]
        setattr(twin, name, pipeline)
    return twin


def inputs_of(policy: LeRobotPolicy, image_dtype: str) -> tuple[Spec, ...]:
    """What the network looks at, in the order of the config's features."""
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
    # A batch of one would be taken for a constant.
    examples = tuple(
        torch.zeros(2, *spec.shape, dtype=getattr(torch, spec.dtype)) for spec in inputs
    )
    batch = torch.export.Dim("batch")
    with torch.no_grad(), warnings.catch_warnings():
        # About torch's own use of its own tree utilities.
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        return torch.export.export(
            graph, examples, dynamic_shapes=(tuple({0: batch} for _ in inputs),), strict=False
        )


def action_spread(graph: Graph, size: int) -> Tensor:
    """Return (A,): by how much each action grows when the network's output grows by one."""
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
    """A frozen batch normalisation, with all that does not depend on the image computed before.

    Of the nodes of a graph with two cameras, half would do that, at every pass.
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
        """The same operations in the same order."""
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
    """Leave out what torch's exporter says about its own insides."""
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
    """Refuse early if a package that ``backend`` is made with is not installed.

    Raises:
        GetiactionError: naming the extra that installs it.
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
    # Weights are halved to float16 unless it is told otherwise.
    vino.save_model(model, file, compress_to_fp16=False)


def _keep_differences_apart(model: Any) -> None:
    """Stop OpenVINO from turning (x - mean) / std into x * (1 / std) - mean / std.

    Those two terms are equal and huge where the dataset hardly varies, and their difference is then
    rounding alone: with a std of 0, to which LeRobot adds 1e-8, actions differed by their own size.
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
