"""Safety checks of an untrusted checkpoint, before anything that it names is imported.

LeRobot builds a policy from the names in ``config.json`` and two processor files, and would import
any class that a processor step names. Here a step must be one of LeRobot's, by its
``registry_name``, with its tensors in files beside it; and a policy must be of a type that loads
only the checkpoint's own files, unless the caller gives ``trust_checkpoint``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from foundation.documents import Document, InvalidDocument, Reader, inside, relative_name
from foundation.text import printable

CONFIG = "config.json"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
ADAPTER = "adapter_config.json"

# All other LeRobot policies fetch models or tokenizers named in their config or processors, some
# with code to run.
SELF_CONTAINED = frozenset({"act", "diffusion", "tdmpc", "vqbet"})
# Steps that compute, and load nothing.
KNOWN_STEPS = frozenset(
    {
        "absolute_actions_processor",
        "device_processor",
        "image_crop_resize_processor",
        "normalizer_processor",
        "observation_processor",
        "pi0_new_line_processor",
        "relative_actions_processor",
        "rename_observations_processor",
        "smolvla_new_line_processor",
        "to_batch_processor",
        "to_batch_processor_action",
        "to_batch_processor_complementary_data",
        "to_batch_processor_observation",
        "unnormalizer_processor",
    }
)

MEND = "take the checkpoint from the run that trained it"
READER = Reader(mend=MEND, size=4 << 20, depth=32, values=100_000)
# Statistics and other small tensors; a policy's weights are not among them.
STATE_BYTES = 64 << 20

_TRUST = (
    "if you trust whoever made it, trust_checkpoint (--trust_checkpoint) lets it load models,"
    " tokenizers and their code from the places that it names"
)


def _file_name(name: str) -> str:
    if "/" in relative_name(name) or not name.endswith(".safetensors"):
        raise ValueError("expected the plain name of a .safetensors file")
    return name


def _state_name(name: str) -> str:
    return _file_name(f"{name}.safetensors").removesuffix(".safetensors")


Steps = Annotated[int, Field(ge=1, le=100_000)]


class Feature(Document):
    """One input or output feature of a policy."""

    type: Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=1_000_000)]], Field(max_length=8)]


type Features = dict[str, Feature]


class PolicyConfig(Document):
    """The validated fields of a policy's ``config.json``; its class checks the others."""

    type: Annotated[str, Field(max_length=100)]
    n_obs_steps: Steps = 1
    chunk_size: Steps | None = None
    horizon: Steps | None = None
    n_action_steps: Steps | None = None
    input_features: Features | None = None
    output_features: Features | None = None
    normalization_mapping: dict[str, str] | None = None
    use_peft: bool = False

    def require_allowed(self, source: str, *, trusted: bool = False) -> None:
        """Refuse a type of policy that may load files from outside the checkpoint.

        Raises:
            InvalidDocument: it is such a type, and not ``trusted``.
        """
        if trusted:
            return
        if self.type not in SELF_CONTAINED:
            raise READER.error(
                f"{source}: a policy of type {printable(self.type)!r} may load what lies elsewhere;"
                f" expected one of {', '.join(sorted(SELF_CONTAINED))}; {_TRUST}"
            )
        if self.use_peft:
            raise READER.error(
                f"{source}: field 'use_peft': an adapter names another model to load; expected"
                f" false; {_TRUST}"
            )


class StepConfig(Document):
    """The validated settings of a step; its class checks the others."""

    features: Annotated[Features, Field(default_factory=dict)]
    norm_map: dict[str, str] | None = None


class Step(Document):
    """One step of a processor."""

    registry_name: Annotated[str, Field(max_length=200)] | None = None
    imported: Annotated[str | None, Field(alias="class")] = None
    config: Annotated[dict[str, Any], Field(default_factory=dict)]
    state_file: Annotated[str, AfterValidator(_file_name)] | None = None

    @property
    def made(self) -> tuple[str | None, dict[str, Any]]:
        """Registry name and settings, from which LeRobot makes the step."""
        return self.registry_name, self.config

    def settings(self, source: str) -> StepConfig:
        """Return the settings of a normaliser.

        Raises:
            InvalidDocument: they are invalid.
        """
        return READER.validate(self.config, StepConfig, f"{source}: {self.registry_name}")


class Processor(Document):
    """A processor file, such as ``policy_preprocessor.json``."""

    name: str = ""
    steps: Annotated[list[Step], Field(max_length=100)]

    def step(self, name: str) -> Step | None:
        """Return the step registered by that name."""
        return next((step for step in self.steps if step.registry_name == name), None)

    def require_allowed(
        self, source: str, *, trusted: bool = False, known: Iterable[Step] = ()
    ) -> None:
        """Refuse steps that name a class, or may load files from outside the checkpoint.

        Args:
            source: The file's name, for messages.
            trusted: Allow every step that LeRobot has registered.
            known: Steps that are allowed in any case, with the same settings.

        Raises:
            InvalidDocument: names the step.
        """
        makes = [step.made for step in known]
        for index, step in enumerate(self.steps):
            name = printable(step.registry_name)
            if step.imported is not None or step.registry_name is None:
                raise READER.refusal(
                    f"{source}: step {index} names the class {printable(step.imported)!r}; expected"
                    " the registry_name of one of LeRobot's steps, since no class that a file names"
                    " is ever imported"
                )
            if not trusted and step.registry_name not in KNOWN_STEPS and step.made not in makes:
                raise READER.error(
                    f"{source}: step {index}, {name!r}, may load something; expected one of"
                    f" {', '.join(sorted(KNOWN_STEPS))}; {_TRUST}"
                )


class PackedProcessor(Document):
    """A processor in a Lightning checkpoint: its file, and its tensors by step."""

    config: Processor
    state: dict[Annotated[str, AfterValidator(_state_name)], dict[str, Any]]


class Packed(Document):
    """A policy's entry in a Lightning checkpoint, without the weights."""

    config: PolicyConfig
    preprocessor: PackedProcessor
    postprocessor: PackedProcessor
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None
    total_steps: int | None
    counters: dict[str, int]
    # Not in those of older versions.
    dataset_fps: Annotated[float, Field(strict=False, gt=0, le=1e6)] | None = None


def is_policy_file(name: str) -> bool:
    """Return whether a file of a repository on the Hub is fetched with its policy.

    Not what its folders hold, such as exports and other checkpoints, and no pickles.
    """
    return "/" not in name and name.endswith((".json", ".safetensors"))


def read_config(path: Path, source: str | None = None) -> PolicyConfig:
    """Read a policy's ``config.json``, called ``source`` in messages.

    Raises:
        OSError: it cannot be read.
        InvalidDocument: it is not a valid one.
    """
    return READER.parse_json(_content(path, source), PolicyConfig, source or str(path))


def read_processor(path: Path, source: str | None = None) -> Processor:
    """Read a processor's file; see :func:`read_config`."""
    return READER.parse_json(_content(path, source), Processor, source or str(path))


def _content(path: Path, source: str | None) -> bytes:
    try:
        return READER.read(path)
    except InvalidDocument as error:
        raise READER.error(str(error).replace(str(path), source or str(path))) from error


def require_safe(directory: Path, source: str | None = None, *, trusted: bool = False) -> None:
    """Refuse LeRobot's ``pretrained_model`` if loading it could do more than compute.

    Args:
        directory: Its local directory.
        source: Its name in messages; its path unless given.
        trusted: Let it load models, tokenizers and their code by name.

    Raises:
        OSError: a file cannot be read.
        InvalidDocument: it could; names the file and the forbidden part.
    """
    source = source or str(directory)
    config = read_config(directory / CONFIG, f"{source}/{CONFIG}")
    config.require_allowed(f"{source}/{CONFIG}", trusted=trusted)
    if not trusted and (directory / ADAPTER).exists():
        raise READER.error(
            f"{source} holds {ADAPTER}, and an adapter names another model to load; {_TRUST}"
        )
    require_safe_processors(directory, source, trusted=trusted)


def require_safe_processors(
    directory: Path, source: str, *, trusted: bool = False, known: Iterable[Step] = ()
) -> None:
    """Refuse the processors in ``directory`` if loading them could do more than compute.

    Args:
        directory: As in :func:`require_safe`; a missing processor is left for LeRobot to report.
        source: Its name in messages.
        trusted: As in :func:`require_safe`.
        known: Steps that are allowed in any case.

    Raises:
        OSError: a file cannot be read.
        InvalidDocument: names the file and the step.
    """
    for name in (PREPROCESSOR, POSTPROCESSOR):
        if not (directory / name).exists():
            continue
        processor = read_processor(directory / name, f"{source}/{name}")
        processor.require_allowed(f"{source}/{name}", trusted=trusted, known=known)
        for step in processor.steps:
            if step.state_file is not None:
                read_state(directory, step.state_file, source)


def read_state(directory: Path, name: str, source: str) -> bytes:
    """Return the content of a step's safetensors file.

    Raises:
        OSError: it cannot be read.
        InvalidDocument: it lies outside the directory, is not a regular file, or is too large.
    """
    reader = Reader(mend=MEND, size=STATE_BYTES)
    path = inside(directory, name)
    if not path.is_file():
        raise reader.refusal(
            f"{source} is incomplete: {directory.name}/{name} is missing, or is not a regular file"
        )
    return reader.read(path)
