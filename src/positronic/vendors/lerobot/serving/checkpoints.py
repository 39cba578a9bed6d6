"""Checkpoint in LeRobot's layout, verified before anything heavy is imported.

``<run>/checkpoints/<step>/pretrained_model/`` holds ``config.json``, ``model.safetensors``, the
two processor pipelines with their statistics, and ``contract.json``. Missing or inconsistent files
are reported here in one line within a fraction of a second, instead of by a traceback after seven
seconds of imports, or not at all: LeRobot passes a feature without statistics through unnormalised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foundation.documents import InvalidDocument
from getiaction.policies.finite import first_non_finite
from getiaction.policies.safety import (
    CONFIG,
    POSTPROCESSOR,
    PREPROCESSOR,
    PolicyConfig,
    Processor,
    Step,
    read_config,
    read_processor,
    read_state,
    require_safe,
)
from positronic.codec import Codec, Contract
from positronic.errors import CheckpointError, ContractError
from positronic.offboard.models.model import UnfitModel
from positronic.vendors.lerobot.serving.normalisation import (
    Statistics,
    changed_features,
    parse_statistics,
)
from positronic.vendors.lerobot.serving.untold import untold_contract

MODEL = "pretrained_model"
WEIGHTS, CONTRACT = "model.safetensors", "contract.json"
# A mean quaternion is short if both signs were in the training data; beyond this it is unambiguous.
OPPOSITE = 0.25
# Policies without language input; LeRobot's loop gives all others the task, and so do sessions.
WORDLESS = frozenset({"act", "diffusion", "vqbet", "tdmpc"})
# LeRobot's standard preprocessing steps, none of which reads language.
_PLAIN_STEPS = frozenset(
    {
        "rename_observations_processor",
        "to_batch_processor",
        "device_processor",
        "normalizer_processor",
    }
)
_NORMALISERS = (
    (PREPROCESSOR, "normalizer_processor", "input_features"),
    (POSTPROCESSOR, "unnormalizer_processor", "output_features"),
)
_STATISTICS = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint: its path, and the content of its small files."""

    path: Path
    """The ``pretrained_model`` directory."""
    id: str
    run: str
    trusted: bool = False
    """Whether it may load models and code that it names, see `getiaction.policies.safety`."""
    on_hub: bool = False
    """Whether it is a repository on the Hub, of which ``path`` is a copy in the Hub's cache."""

    @property
    def label(self) -> str:
        """Its name for messages and clients, without the path on this machine."""
        if self.run == self.id:  # it is no step of a run
            return self.id
        return f"{self.run}@{self.id}" if self.on_hub else f"{self.run}/checkpoints/{self.id}"

    def verify(self, codec: Codec | None = None, fps: float | None = None) -> Contract:
        """Verify that it is complete and fits ``codec``, and return its contract.

        Args:
            codec: The requested codec, if any. A checkpoint without a contract, as LeRobot's own
                training writes it, is served without one as it is.
            fps: The requested rate, if any; needed where neither a contract nor the dataset says
                it.

        Raises:
            CheckpointError: A file or a statistic is missing or damaged, or loading it would be
                unsafe.
            ContractError: The checkpoint was trained with another codec or at another rate, or
                was changed since; or its rate is unknown.
        """
        for name in (CONFIG, WEIGHTS, PREPROCESSOR, POSTPROCESSOR):
            if not (self.path / name).is_file():
                raise CheckpointError(
                    f"checkpoint {self.label} is incomplete: pretrained_model/{name} is missing;"
                    " choose another one with --checkpoint, or train on"
                )
        config = self._config
        self.require_safe()
        contract = self._contract(codec, fps)
        self._check_features(config, contract)
        self._check_statistics(config)
        self._check_digests(contract)
        if not (self.path / CONTRACT).is_file():
            self._check_signs(contract.make_codec())
        return contract

    @property
    def takes_task(self) -> bool:
        """Whether the policy takes the task as text; plain ACT does not."""
        steps = self._processor(PREPROCESSOR).steps
        plain = all(step.registry_name in _PLAIN_STEPS for step in steps)
        return not plain or self._config.type not in WORDLESS

    def require_safe(self) -> None:
        """Refuse it if loading it could do more than compute.

        Raises:
            CheckpointError: It could; names the file and the forbidden part.
        """
        try:
            require_safe(self.path, f"checkpoint {self.label}", trusted=self.trusted)
        except (OSError, InvalidDocument) as error:
            raise CheckpointError(self._without_paths(error)) from error

    def require_finite(self) -> None:
        """Refuse it if its weights are not all finite numbers.

        Raises:
            CheckpointError: They are not, or their file is damaged.
        """
        try:
            name = first_non_finite(self.path / WEIGHTS)
        except (OSError, InvalidDocument) as error:
            raise CheckpointError(
                f"checkpoint {self.label} cannot be loaded: {self._without_paths(error)}"
            ) from error
        if name is not None:
            raise UnfitModel(
                f"checkpoint {self.label} has weights that are not finite numbers, such as {name!r}"
                f" in {MODEL}/{WEIGHTS}; choose another one with --checkpoint, and train with a"
                " smaller learning rate"
            )

    @property
    def actions(self) -> list[str]:
        """The policy's output features."""
        return list(self._config.output_features or ())

    @cached_property
    def statistics(self) -> Statistics:
        """Normalisation statistics of observations: feature, then ``mean``, ``std``, ``min`` etc.

        Raises:
            CheckpointError: They are missing or damaged.
        """
        return self._statistics_of(*_NORMALISERS[0][:2])

    @cached_property
    def action_statistics(self) -> Statistics:
        """Statistics by which actions are unnormalised.

        Raises:
            CheckpointError: They are missing or damaged.
        """
        return self._statistics_of(*_NORMALISERS[1][:2])

    def _contract(self, codec: Codec | None, fps: float | None) -> Contract:
        if not (self.path / CONTRACT).is_file():
            return untold_contract(self.path, self.label, self._config, codec, fps)
        try:
            contract = Contract.load(self.path / CONTRACT)
        except ContractError as error:
            # Sent to clients, which must not learn paths of this machine.
            text = str(error).replace(str(self.path), f"{self.label}/{MODEL}")
            raise ContractError(f"checkpoint {self.label} is damaged: {text}") from error
        if codec is not None:
            _require_codec(contract, codec, self.label)
        if fps not in (None, contract.fps):
            raise ContractError(
                f"--fps={fps:g}, but checkpoint {self.label} was trained at {contract.fps:g} rows"
                " per second; leave --fps away, the checkpoint knows its own"
            )
        return contract

    def _check_features(self, config: PolicyConfig, contract: Contract) -> None:
        """Raise unless the features of the policy's config are those of the codec."""
        features = {**(config.input_features or {}), **(config.output_features or {})}
        for key, feature in features.items():
            made = contract.features.get(key)
            shape = feature.shape
            if feature.type == "VISUAL":
                shape = [*shape[1:], *shape[:1]]
            if made is None or list(made["shape"]) != shape:
                got = "does not make it" if made is None else f"makes {list(made['shape'])}"
                raise ContractError(
                    f"checkpoint {self.label} takes {key} of shape {shape}, but codec"
                    f" '{contract.codec['name']}' {got}; serve it with the codec of its training"
                )
        for name in ("chunk_size", "n_action_steps"):
            ours, theirs = getattr(contract, name), getattr(config, name)
            if None not in (ours, theirs) and ours != theirs:
                raise ContractError(
                    f"checkpoint {self.label} disagrees with its own contract: {name} is"
                    f" {theirs} in config.json and {ours} in contract.json"
                )

    def _check_statistics(self, config: PolicyConfig) -> None:
        for file, step_name, which in _NORMALISERS:
            step = self._step(file, step_name)
            try:
                settings = step.settings(f"{MODEL}/{file}")
            except InvalidDocument as error:
                raise CheckpointError(f"checkpoint {self.label} is damaged: {error}") from error
            modes = settings.norm_map or config.normalization_mapping or {}
            known = settings.features
            present = {
                f"{name}.{statistic}"
                for name, values in self._statistics_of(file, step_name).items()
                for statistic in values
            }
            for key, feature in (getattr(config, which) or {}).items():
                mode = modes.get(feature.type, "IDENTITY")
                needed = [f"{key}.{name}" for name in _STATISTICS.get(mode, ())]
                missing = [name for name in needed if name not in present or key not in known]
                if missing:
                    raise CheckpointError(
                        f"checkpoint {self.label} has no normalisation statistics {missing[0]!r}"
                        f" ({file} declares {mode} for it), so raw values would reach the policy;"
                        " train on a dataset with complete meta/stats.json"
                    )

    def _check_digests(self, contract: Contract) -> None:
        """Raise unless the statistics have the digests recorded in the contract."""
        for file, step_name, _ in _NORMALISERS:
            changed = list(changed_features(contract, self._statistics_of(file, step_name)))
            if changed:
                raise ContractError(
                    f"checkpoint {self.label} was changed: its normalisation statistics of"
                    f" {', '.join(changed)} ({file}) are not those that contract.json was signed"
                    " with, so actions would be wrong; take the checkpoint from its training run"
                )

    def _check_signs(self, codec: Codec) -> None:
        """Raise if the mean shows opposite quaternion signs: the only evidence without contract."""
        for feature, places in codec.quaternions.items():
            mean = np.ravel(self.statistics.get(feature, {}).get("mean", ()))
            for start, reference in places.items():
                seen = mean[start : start + 4]
                if len(seen) == 4 and np.dot(seen, reference) < -OPPOSITE:
                    raise ContractError(
                        f"checkpoint {self.label} has no contract.json, and was trained on"
                        f" quaternions opposite to those of codec '{codec.name}' (elements {start}"
                        f" to {start + 3} of {feature}); add --codec.quat_reference=None for signs"
                        " as the robot sends them, or the reference of its training"
                    )

    def _step(self, file: str, name: str) -> Step:
        return self._processor(file).step(name) or Step(config={})

    def _statistics_of(self, file: str, step_name: str) -> Statistics:
        name = self._step(file, step_name).state_file
        if name is None:
            return {}
        try:
            return parse_statistics(read_state(self.path, name, MODEL))
        except (OSError, ValueError, InvalidDocument) as error:
            raise CheckpointError(
                f"checkpoint {self.label} is incomplete: pretrained_model/{name} with the"
                " normalisation statistics is missing or damaged"
            ) from error

    @cached_property
    def _config(self) -> PolicyConfig:
        return self._read(CONFIG, read_config)

    def _processor(self, name: str) -> Processor:
        return self._read(name, read_processor)

    def _read[T](self, name: str, read: Callable[[Path, str], T]) -> T:
        try:
            return read(self.path / name, f"{MODEL}/{name}")
        except (OSError, InvalidDocument) as error:
            raise CheckpointError(
                f"checkpoint {self.label} is damaged: {self._without_paths(error)}"
            ) from error

    def _without_paths(self, error: Exception) -> str:
        """Return an error's message for clients, without paths of this machine."""
        return str(error).replace(str(self.path), f"{self.label}/{MODEL}")


def _require_codec(contract: Contract, codec: Codec, label: str) -> None:
    differences = contract.codec_differences(contract.adopt(codec))
    if not differences:
        return
    trained, asked = contract.codec["name"], codec.name
    if trained == asked:
        what = f"another '{trained}' than that of --codec ({'; '.join(differences[:3])})"
    else:
        what = f"codec '{trained}', not with --codec '{asked}'"
    raise ContractError(
        f"checkpoint {label} was trained with {what};"
        " leave --codec away, the checkpoint knows its own"
    )
