"""Push of a LeRobot dataset or policy to the Hugging Face Hub.

As LeRobot pushes them: its card, its files and, for a dataset, the tag of its format's version.
Not by its ``push_to_hub``, which sends the card to huggingface.co first, whatever ``HF_ENDPOINT``
says, writes weights anew that were checked here, and leaves a replaced dataset's files beside the
new ones.
"""

import contextlib
import shlex
import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation import storage
from foundation.documents import Document, Reader
from foundation.errors import FoundationError, StorageError, UsageError
from foundation.storage import hub
from getiaction.policies.finite import first_non_finite
from getiaction.policies.safety import CONFIG, read_config
from getiaction.roots import VERSION_TAG
from positronic.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import HfUri, ModelCard

__all__ = ["DATASET", "POLICY", "Destination"]

DATASET, POLICY = hub.DATASET, "model"
# Folders of a dataset's files; what else is in a repository stays.
FOLDERS = ["data/*", "meta/*", "videos/*"]
# As LeRobot has it.
WEIGHTS = "model.safetensors"
POLICY_FILES = ["*.safetensors", "*.json", "*.yaml"]
CARD = "README.md"
TRAIN_CONFIG, PROVENANCE = "train_config.json", "provenance.json"
READER = Reader(size=4 << 20, allow_nan=True)


class _Training(Document):
    steps: int | None = None
    batch_size: int | None = None
    seed: int | None = None


class _Dataset(Document):
    root: str = ""
    episodes: int | None = None
    frames: int | None = None
    fps: float | None = None


class _Provenance(Document):
    dataset: _Dataset = _Dataset()


class Destination:
    """Repository on the Hub to push to, checked before anything is made for it."""

    def __init__(
        self, kind: str, name: str, *, private: bool = True, flag: str = "repo_id"
    ) -> None:
        """Check the name, and that the Hub knows the token.

        Args:
            kind: ``dataset`` or ``model``.
            name: ``USER/NAME``.
            private: Whether only its owner sees it, if it is made anew.
            flag: The flag that gave the name.

        Raises:
            UsageError: ``name`` is not one.
            StorageError: there is no token, or the Hub refuses it or cannot be reached.
        """
        from huggingface_hub import HfApi, get_token

        try:
            folder = "datasets/" if kind == hub.DATASET else ""
            self._uri: HfUri = hub.parse(f"{hub.SCHEME}{folder}{name}")
        except StorageError as error:
            raise UsageError(f"--{flag} is {name!r}; expected USER/NAME") from error
        if self._uri.id != name:
            raise UsageError(f"--{flag} is {name!r}; expected USER/NAME, and nothing else")
        self.private = private
        if get_token() is None:
            raise StorageError(f"nothing can be pushed to {self} without a token; {hub.TOKEN}")
        with hub.explained(self._uri, "pushed to"):
            HfApi().whoami()

    def __str__(self) -> str:
        return hub.address(self._uri)

    def push(self, directory: Path, place: str) -> None:
        """Push a dataset or a policy, and print where it is.

        Args:
            directory: Its local directory.
            place: Its place, for messages.

        Raises:
            CheckpointError: the policy's weights are not finite.
            StorageError: it cannot be pushed; the message says how to push it again.
        """
        is_dataset = self._uri.type == DATASET
        card = (
            _dataset_card(directory, self._uri.id)
            if is_dataset
            else _policy_card(directory, self._uri.id)
        )
        try:
            with hub.explained(self._uri, "pushed to"):
                self._upload(directory, card)
        # huggingface_hub has no class of its own for a failed upload.
        except (FoundationError, RuntimeError, ValueError) as error:
            why = str(error) if isinstance(error, FoundationError) else hub.line(error)
            words = [f"--directory={place}", f"--repo_id={self._uri.id}"]
            words += [] if self.private else ["--private=False"]
            raise StorageError(
                f"{place} is complete, but was not pushed: {why}. Push it again by"
                f" `positronic-to-lerobot push {shlex.join(words)}`"
            ) from error

    def _upload(self, directory: Path, card: Any) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        is_dataset = self._uri.type == DATASET
        repository: dict[str, Any] = {"repo_id": self._uri.id, "repo_type": self._uri.type}
        api = HfApi()
        api.create_repo(**repository, private=self.private, exist_ok=True)
        api.upload_folder(
            **repository,
            folder_path=directory,
            allow_patterns=FOLDERS if is_dataset else POLICY_FILES,
            # LeRobot reads every file there, also those of a dataset that this one replaces.
            delete_patterns=FOLDERS if is_dataset else None,
            commit_message="Upload dataset" if is_dataset else "Upload policy",
        )
        api.upload_file(
            **repository,
            path_or_fileobj=str(card).encode(),
            path_in_repo=CARD,
            commit_message="Upload card",
        )
        if is_dataset:
            # LeRobot reads this tag and no branch, so until here readers had the old content.
            with contextlib.suppress(RevisionNotFoundError):
                api.delete_tag(**repository, tag=VERSION_TAG)
            api.create_tag(**repository, tag=VERSION_TAG)
        info = api.repo_info(**repository)
        seen = "private" if info.private else "public"
        print(f"pushed to {self} at {str(info.sha)[:12]} ({seen})")


def _dataset_card(root: Path, name: str) -> Any:
    """Return LeRobot's card of the dataset at ``root``."""
    from lerobot.datasets.utils import create_lerobot_dataset_card

    from getiaction.data.opening import read_metadata

    return create_lerobot_dataset_card(dataset_info=read_metadata(name, root).info, repo_id=name)


def _policy_card(folder: Path, name: str) -> "ModelCard":
    """Return LeRobot's card of the policy in ``folder``, if that can be used."""
    from huggingface_hub import ModelCard, ModelCardData
    from lerobot import __version__
    from lerobot.configs import PreTrainedConfig

    from getiaction.policies.lerobot.registry import config_class

    if (wrong := first_non_finite(folder / WEIGHTS)) is not None:
        raise CheckpointError(
            f"{folder} has weights that are not finite numbers, such as {wrong!r}; push another"
            " checkpoint"
        )
    config_class(read_config(folder / CONFIG).type)
    config: Any = PreTrainedConfig.from_pretrained(folder)
    training = _read(folder / TRAIN_CONFIG, _Training)
    dataset = _read(folder / PROVENANCE, _Provenance).dataset
    # The path on this machine means nothing elsewhere.
    public = hub.parse(dataset.root).id if storage.is_hub(dataset.root) else None
    data = ModelCardData(
        license=config.license,
        library_name="lerobot",
        pipeline_tag="robotics",
        tags=sorted({*(config.tags or ()), "robotics", "lerobot", config.type}),
        model_name=config.type,
        datasets=public,
    )
    template = files("lerobot.templates").joinpath("lerobot_modelcard_template.md")
    with warnings.catch_warnings():
        # LeRobot's template has a backslash too many.
        warnings.filterwarnings("ignore", "invalid escape sequence")
        card: ModelCard = ModelCard.from_template(
            data,
            template_str=template.read_text(encoding="utf-8"),
            policy_repo_id=name,
            input_features=config.input_features,
            output_features=config.output_features,
            training=training.model_dump() | {"lerobot_version": __version__},
            dataset=dataset.model_dump() | {"repo_id": public} if public else None,
        )
    return card


def _read[T: Document](file: Path, kind: type[T]) -> T:
    return READER.load_json(file, kind) if file.is_file() else kind()
