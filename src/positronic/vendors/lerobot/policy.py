"""A trained LeRobot checkpoint as a policy, in this process.

What native LeRobot would do with the same observations is done with LeRobot's own classes; added
are the codec on both sides, memories of their own for sessions that share the weights, and
refusals instead of silent nonsense.
"""

import itertools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import configuronic as cfn
import numpy as np
from numpy.typing import NDArray

from positronic.codec import Codec, Contract, Limits
from positronic.errors import CodecError
from positronic.offboard.models.model import UnfitModel
from positronic.policy.base import Action
from positronic.vendors.lerobot.acting import Observation, Prediction, Request, choose_acting
from positronic.vendors.lerobot.action_limits import ActionLimits
from positronic.vendors.lerobot.checkpoints import Checkpoint, CheckpointDirectory
from positronic.vendors.lerobot.codecs import require_codec
from positronic.vendors.lerobot.sessions import LeRobotSession
from positronic.vendors.lerobot.threads import choose_threads

# Largest difference between an action that was predicted in a batch and the same one predicted
# alone, in parts of each action dimension's scale: the sums of a matrix product are in another
# order, which changes float32 by 1e-6, and a diffusion policy goes on from there a hundred times.
# In bf16 it is the backend's own tolerance.
BATCH_TOLERANCE = 1e-4


class LeRobotPolicy:
    """One loaded checkpoint; any number of sessions may use it at once."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        contract: Contract,
        device: str = "auto",
        *,
        backend: str = "torch",
        precision: str = "float32",
        compile: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        """Load the weights and processors; takes seconds, most of them imports.

        Args:
            checkpoint: Where they are.
            contract: What `Checkpoint.verify` returned.
            device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            backend: ``auto``, ``torch``, ``onnx`` or ``openvino``.
            precision: ``float32`` or ``bf16``.
            compile: Let torch compile the policy.
            say: Told what takes long, and what was chosen.

        Raises:
            CheckpointError: LeRobot cannot load it.
            UsageError: There is no such device or backend, or not for this policy.
        """
        from positronic.vendors.lerobot.backends.torch_backend import TorchBackend

        self.checkpoint, self.contract = checkpoint, contract
        self._codec = contract.make_codec()
        contract.require_made(self._codec)
        self._limits = Limits.of(self._codec, checkpoint.statistics)
        (action, *_) = checkpoint.actions or ("action",)
        self._possible = ActionLimits.of(checkpoint.action_statistics.get(action, {}))
        self._lock = threading.Lock()
        self._seeds = itertools.count()
        eager = TorchBackend(checkpoint, device)
        self.takes_task = checkpoint.takes_task
        self._acting, self._backend = choose_acting(
            checkpoint,
            contract,
            eager,
            backend=backend,
            precision=precision,
            compile=compile,
            say=say,
        )
        config = eager.policy.config
        self.every_step = self._acting.every_step
        self.n_obs_steps: int = config.n_obs_steps
        self._expected = {
            key: tuple(contract.features[key]["shape"]) for key in config.input_features
        }
        horizon = 1 if self.every_step else self._acting.n_actions
        self._meta = {
            "type": config.type,
            "device": eager.device,
            "backend": self._backend.name,
            "precision": self._backend.precision,
            "every_step": self.every_step,
            "n_obs_steps": self.n_obs_steps,
            "action_fps": float(contract.fps),
            "action_horizon_sec": horizon / contract.fps,
            "image_sizes": self._codec.meta.get("image_sizes", {}),
            "contract": contract.to_json(),
            "checkpoint_id": checkpoint.id,
            "checkpoint_path": checkpoint.label,
        }

    @property
    def meta(self) -> dict[str, Any]:
        """What the ready message says of the checkpoint."""
        return self._meta

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its weights hold."""
        return self._backend.nbytes

    def new_session(self, context: Mapping[str, Any] | None = None) -> LeRobotSession:
        """Start an episode; sessions share the weights and nothing else.

        The n-th one draws from the n-th random stream, whatever the others do.
        """
        return LeRobotSession(self, context or {}, next(self._seeds))

    def encode(self, obs: Mapping[str, Any], before: Observation | None = None) -> Observation:
        """Turn raw signals into what the policy was trained on, or say why that cannot be.

        Args:
            obs: Raw signals.
            before: What the observation before it in the same episode was turned into.

        Raises:
            CodecError: A signal is missing, or has another shape, type or unit than in training.
        """
        encoded = self._codec.encode(obs, before)
        self._limits.check(encoded)
        return {key: encoded[key] for key in self._expected}

    def decode(self, actions: NDArray[np.float32]) -> list[Action]:
        """Turn actions (T, A) into commands, the first of them due at once."""
        commands = self._codec.decode_rows(actions)
        fps = self.contract.fps
        return [{**command, "timestamp": i / fps} for i, command in enumerate(commands)]

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `positronic.offboard.models.model.Model.predict`; rows agree to `BATCH_TOLERANCE`."""
        with self._lock:
            return self._acting.predict(requests)

    def require_possible(self, actions: NDArray[np.float32]) -> None:
        """Refuse actions (T, A) that are no numbers, or far beyond what training saw.

        Raises:
            CodecError: Naming the element.
        """
        self._possible.check(actions)

    def require_fit(self) -> None:
        """Warm up, and answer the observations that the checkpoint carries, or a typical one.

        Raises:
            UnfitModel: An answer is nothing that a robot could get.
        """
        from positronic.vendors.lerobot.backends import examples

        looked_at = {key: self.contract.features[key] for key in self._expected}
        rows = examples.load(self.checkpoint.path, looked_at) or self._typical()
        count = len(next(iter(rows.values()), ()))
        requests = [Request({key: rows[key][i] for key in rows}) for i in range(count)]
        try:
            self.warm_up()
            for prediction in map(self.predict, ([request] for request in requests)):
                self.require_possible(prediction[0].actions)
        except CodecError as error:
            raise UnfitModel(
                f"checkpoint {self.checkpoint.label} answers its own examples with nonsense:"
                f" {error}"
            ) from error

    def _typical(self) -> dict[str, NDArray[Any]]:
        """One observation from the middle of the training's range, stacked; images are grey."""
        rows: dict[str, NDArray[Any]] = {}
        for key, shape in self._expected.items():
            mean = self.checkpoint.statistics.get(key, {}).get("mean", np.zeros(1))
            if len(shape) == 3:
                rows[key] = np.full((1, *shape), 128, np.uint8)
            else:
                rows[key] = np.broadcast_to(mean, (1, *shape)).astype(np.float32)
        return rows

    def warm_up(self) -> None:
        """Predict once from zeros and decode, so that the first real observation waits for nothing.

        Raises:
            CodecError: What came out are no numbers.
        """
        zeros: dict[str, NDArray[Any]] = {
            key: np.zeros(shape, np.uint8 if len(shape) == 3 else np.float32)
            for key, shape in self._expected.items()
        }
        (prediction,) = self.predict([Request(zeros)])
        if not np.isfinite(prediction.actions).all():
            raise CodecError("the policy predicted actions that are not finite numbers")
        with suppress(CodecError):  # what zeros lead to need not make sense
            self.decode(prediction.actions)

    def close(self) -> None:
        """Nothing to give back: weights go when the last session that uses them does."""


@cfn.config()
def act_absolute(
    checkpoints_dir: str,
    checkpoint: str | int | None = None,
    codec: Codec | None = None,
    device: str = "auto",
    backend: str = "torch",
    precision: str = "float32",
    compile: bool = False,
    trust_checkpoint: bool = False,
) -> LeRobotPolicy:
    """A trained checkpoint in this process, without a server.

    Args:
        checkpoints_dir: Directory of the training run, or the checkpoints folder in it; local or
            s3://bucket/key.
        checkpoint: Step of the checkpoint; the newest if not given.
        codec: Codec of the training; the checkpoint knows it.
        device: auto, cpu, cuda or another one of torch.
        backend: auto, torch, onnx or openvino.
        precision: float32 or bf16.
        compile: Let torch compile the policy.
        trust_checkpoint: Let the checkpoint load models, tokenizers and their code from the places
            that it names; policies other than act, diffusion, tdmpc and vqbet need it.
    """
    directory = CheckpointDirectory(checkpoints_dir, trust_checkpoint=trust_checkpoint)
    newest = directory.resolve(checkpoint)
    older = directory.older(newest) if checkpoint is None else []
    while True:
        found = directory.checkpoint(newest)
        contract = found.verify(None if codec is None else require_codec(codec, "codec"))
        choose_threads(contract)
        try:
            found.require_finite()
            policy = LeRobotPolicy(
                found,
                contract,
                device,
                backend=backend,
                precision=precision,
                compile=compile,
            )
            policy.require_fit()
            return policy
        except UnfitModel as error:
            if not older:
                raise
            print(f"passed over: {error}", file=sys.stderr, flush=True)
            newest = older.pop(0)
