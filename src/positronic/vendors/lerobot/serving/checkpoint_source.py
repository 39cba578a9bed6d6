"""Checkpoint source: lists and loads the checkpoints of one run for the server's model store."""

import contextlib
import sys
from collections.abc import Callable

from foundation import storage
from positronic.codec import Codec
from positronic.errors import CheckpointError
from positronic.offboard.models.model import Model
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoints import MODEL, WEIGHTS


class CheckpointSource:
    """Loads checkpoints as policies; each is fetched separately, at its first use."""

    def __init__(
        self,
        directory: CheckpointDirectory,
        codec: Codec | None,
        device: str,
        *,
        fps: float | None = None,
        backend: str = "torch",
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        """Load from ``directory``; other arguments as in `ServedPolicy` and `Checkpoint.verify`."""
        self._directory, self._codec, self._device, self._fps = directory, codec, device, fps
        self._backend, self._precision, self._compile = backend, precision, compile

    def ids(self) -> list[str]:
        """List the steps that exist now."""
        return self._directory.ids()

    def resolve(self, requested: str) -> str:
        """See `CheckpointDirectory.resolve`."""
        return self._directory.resolve(requested)

    def nbytes(self, model_id: str) -> int:
        """Return the size of the weights' file as an estimate.

        Raises:
            CheckpointError: There is no such file.
        """
        entry = storage.listing(self._directory.folder(model_id)).get(WEIGHTS)
        if entry is None:
            raise CheckpointError(
                f"checkpoint {self._directory.name}/checkpoints/{model_id} is incomplete:"
                f" {MODEL}/{WEIGHTS} is missing"
            )
        return entry.size

    def load(self, model_id: str, say: Callable[[str], None]) -> Model:
        """Fetch, verify, load and warm up one checkpoint."""
        from positronic.vendors.lerobot.serving.policy import ServedPolicy

        checkpoint = self._directory.checkpoint(model_id)
        contract = checkpoint.verify(self._codec, self._fps)
        checkpoint.require_finite()
        # LeRobot prints as it loads; stdout is for programs that wait for the line that says ready.
        with contextlib.redirect_stdout(sys.stderr):
            policy = ServedPolicy(
                checkpoint,
                contract,
                self._device,
                backend=self._backend,
                precision=self._precision,
                compile=self._compile,
                say=say,
            )
            policy.require_fit()
        return policy
