"""Policy and session of a trained LeRobot checkpoint, in this process.

Inference is LeRobot's own, by its classes; added are the codec on both sides, a separate memory for
each session that shares the weights, and errors instead of silently wrong actions.
"""

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.codec import Codec, Command, Contract, Limits
from positronic.codec.limits import ActionLimits
from positronic.errors import CodecError
from positronic.offboard.models.model import UnfitModel
from positronic.policy.base import Action
from positronic.vendors.lerobot.codecs import require_codec
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint
from positronic.vendors.lerobot.serving.choosing import choose_backend, choose_strategy
from positronic.vendors.lerobot.serving.provenance import trained_on
from positronic.vendors.lerobot.serving.strategies.base import Observation, Prediction, Request
from positronic.vendors.lerobot.serving.threads import choose_threads

__all__ = ["ServedPolicy", "load_policy"]

# Largest difference between an action that was predicted in a batch and the same one predicted
# alone, in parts of each action dimension's scale: the sums of a matrix product are in another
# order, which changes float32 by 1e-6, and a diffusion policy goes on from there a hundred times.
# In bf16 it is the backend's own tolerance.
BATCH_TOLERANCE = 1e-4


class ServedPolicy:
    """One loaded checkpoint; any number of sessions may use it at once.

    Attributes:
        codec: Encodes raw signals as the policy's features, and decodes actions into commands.
        limits: Bounds of observations: those far outside the training data are refused.
        action_limits: Bounds of actions: those far outside the training data are not sent.
        expected: Shapes of the policy's inputs.
    """

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
            checkpoint: The checkpoint.
            contract: The result of `Checkpoint.verify`.
            device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            backend: ``auto``, ``torch``, ``onnx`` or ``openvino``.
            precision: ``float32`` or ``bf16``.
            compile: Let torch compile the policy.
            say: Called with messages on slow work and on the choice.

        Raises:
            CheckpointError: LeRobot cannot load it.
            UsageError: There is no such device or backend, or it does not support this policy.
        """
        from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend

        self.checkpoint, self.contract = checkpoint, contract
        self.codec = contract.make_codec()
        contract.require_made(self.codec)
        self.limits = Limits.of(self.codec, checkpoint.statistics)
        (action, *_) = checkpoint.actions or ("action",)
        self.action_limits = ActionLimits.of(checkpoint.action_statistics.get(action, {}))
        self._lock = threading.Lock()
        self._seeds = itertools.count()
        eager = TorchBackend(checkpoint, device)
        self.takes_task = checkpoint.takes_task
        self._backend = choose_backend(
            checkpoint,
            contract,
            eager,
            backend=backend,
            precision=precision,
            compile=compile,
            say=say,
        )
        self._strategy = choose_strategy(checkpoint, eager, self._backend)
        config = eager.policy.config
        self.every_step = self._strategy.every_step
        self.n_obs_steps: int = config.n_obs_steps
        self.expected = {
            key: tuple(contract.features[key]["shape"]) for key in config.input_features
        }
        horizon = 1 if self.every_step else self._strategy.n_actions
        self._meta = {
            "type": config.type,
            "device": eager.device,
            "backend": self._backend.name,
            "precision": self._backend.precision,
            "every_step": self.every_step,
            "n_obs_steps": self.n_obs_steps,
            "action_fps": float(contract.fps),
            "action_horizon_sec": horizon / contract.fps,
            "image_sizes": self.codec.meta.get("image_sizes", {}),
            "contract": contract.to_json(),
            "checkpoint_id": checkpoint.id,
            "checkpoint_path": checkpoint.label,
            **trained_on(checkpoint.path),
        }

    @property
    def meta(self) -> dict[str, Any]:
        """The checkpoint's fields of the ready message."""
        return self._meta

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its weights hold."""
        return self._backend.nbytes

    def new_session(self, context: Mapping[str, Any] | None = None) -> "ServedSession":
        """Start an episode; sessions share only the weights.

        The n-th session draws from the n-th random stream, independently of the others.
        """
        return ServedSession(self, context or {}, next(self._seeds))

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """See `positronic.offboard.models.model.Model.predict`; rows agree to `BATCH_TOLERANCE`."""
        with self._lock:
            return self._strategy.predict(requests)

    def require_fit(self) -> None:
        """Warm up, and predict for the checkpoint's examples, or for a typical observation.

        Raises:
            UnfitModel: A predicted action is not finite or exceeds the limits.
        """
        from positronic.vendors.lerobot.serving.backends import examples

        looked_at = {key: self.contract.features[key] for key in self.expected}
        rows = examples.load(self.checkpoint.path, looked_at) or self._typical()
        count = len(next(iter(rows.values()), ()))
        requests = [Request({key: rows[key][i] for key in rows}) for i in range(count)]
        try:
            self.warm_up()
            for prediction in map(self.predict, ([request] for request in requests)):
                self.action_limits.check(prediction[0].actions)
        except CodecError as error:
            raise UnfitModel(
                f"checkpoint {self.checkpoint.label} answers its own examples with nonsense:"
                f" {error}"
            ) from error

    def _typical(self) -> dict[str, NDArray[Any]]:
        """Return a stacked observation from the middle of the training's range; images are grey."""
        rows: dict[str, NDArray[Any]] = {}
        for key, shape in self.expected.items():
            mean = self.checkpoint.statistics.get(key, {}).get("mean", np.zeros(1))
            if len(shape) == 3:
                rows[key] = np.full((1, *shape), 128, np.uint8)
            else:
                rows[key] = np.broadcast_to(mean, (1, *shape)).astype(np.float32)
        return rows

    def warm_up(self) -> None:
        """Predict once from zeros and decode, so that the first real observation is not slower.

        Raises:
            CodecError: The actions are not finite numbers.
        """
        zeros: dict[str, NDArray[Any]] = {
            key: np.zeros(shape, np.uint8 if len(shape) == 3 else np.float32)
            for key, shape in self.expected.items()
        }
        (prediction,) = self.predict([Request(zeros)])
        if not np.isfinite(prediction.actions).all():
            raise CodecError("the policy predicted actions that are not finite numbers")
        with suppress(CodecError):  # actions for zeros need not be valid
            self.codec.decode_rows(prediction.actions, {})

    def close(self) -> None:
        """Do nothing: the weights are freed with the last session that uses them."""


class ServedSession:
    """One episode with a `ServedPolicy`.

    ``prepare`` changes no lasting state: a session whose request is refused or never answered is
    unchanged. ``finish`` updates its history.
    """

    def __init__(self, policy: ServedPolicy, context: Mapping[str, Any], seed: int) -> None:
        """Start the episode; ``seed`` seeds the random numbers unless an observation has one."""
        self._policy = policy
        self._codec, self._fps = policy.codec, policy.contract.fps
        self._context = dict(context)
        self._seed = seed
        self._memory: Any = None
        # Commands of a policy that is asked at every step and predicts several.
        self._later: deque[Command] = deque()
        self._command: Command | None = None
        self._raw: Mapping[str, Any] = {}
        self._unseen: deque[Observation] = deque(maxlen=policy.n_obs_steps - 1)
        self._present: Observation = {}
        self._before: Observation | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """The policy's meta."""
        return self._policy.meta

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Answer one observation.

        Raises:
            CodecError: The observation is invalid; names the key and what was expected.
        """
        request = self.prepare(obs)
        return self.finish(None if request is None else self._policy.predict([request])[0])

    def prepare(self, obs: Mapping[str, Any]) -> Request | None:
        """See `positronic.offboard.models.model.ModelSession.prepare`.

        Args:
            obs: Raw signals; ``task`` if the policy is language-conditioned; and optionally
                ``seed`` in the first one of an episode, for reproducible sampling.
        """
        if self._context:
            obs = {**self._context, **obs}
        encoded = self._codec.encode(obs, self._before)
        self._policy.limits.check(encoded)
        observation = {key: encoded[key] for key in self._policy.expected}
        task = self._task(obs)
        seed = self._seed_of(obs)
        self._present, self._raw = observation, obs
        if self._later:
            return None
        return Request(observation, task, tuple(self._unseen), self._memory, seed)

    def finish(self, prediction: Prediction | None) -> list[Action]:
        """See `positronic.offboard.models.model.ModelSession.finish`."""
        if prediction is None:
            self._command = self._later.popleft()
            # A simulator may render the next image into the same array.
            self._unseen.append({key: value.copy() for key, value in self._present.items()})
            self._before = self._present
            return self._timed([self._command])
        self._policy.action_limits.check(prediction.actions)
        commands = self._codec.decode_rows(prediction.actions, self._raw, self._command)
        self._before = self._present
        if not self._policy.every_step:
            return self._timed(commands)
        # The client executes this command before it asks again, which relative actions start from.
        self._command = commands[0]
        self._memory = prediction.memory
        self._later.extend(commands[1:])
        self._unseen.clear()
        return self._timed(commands[:1])

    def close(self) -> None:
        """Do nothing: a session holds no resources."""

    def _timed(self, commands: Sequence[Command]) -> list[Action]:
        """Return commands with their time stamps; the first one is due at once."""
        return [{**command, "timestamp": i / self._fps} for i, command in enumerate(commands)]

    def _task(self, obs: Mapping[str, Any]) -> str:
        if not self._policy.takes_task:
            return ""
        task = obs.get("task")
        if not isinstance(task, str):
            got = "nothing" if task is None else type(task).__name__
            raise CodecError(f"'task' is {got}, expected words: this policy is told what to do")
        return task

    def _seed_of(self, obs: Mapping[str, Any]) -> int:
        seed = obs.get("seed", self._seed)
        whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        if not whole or not 0 <= seed < 2**63:
            raise CodecError(f"'seed' is {seed!r:.40}, expected a whole number from 0 to 2**63 - 1")
        return int(seed)


def load_policy(
    checkpoints_dir: str,
    checkpoint: str | int | None = None,
    codec: Codec | None = None,
    *,
    fps: float | None = None,
    trust_checkpoint: bool = False,
    **options: Any,
) -> ServedPolicy:
    """Load a checkpoint of a training run; by default the newest that is fit to act.

    Args:
        checkpoints_dir: Directory of the training run, or the checkpoints folder in it; local or
            s3://bucket/key. Or hf://USER/NAME[@REVISION], a policy on the Hub.
        checkpoint: Step of the checkpoint; the newest if not given.
        codec: Codec of the training, of a checkpoint without a contract.
        fps: Rate of its dataset, where it does not say it.
        trust_checkpoint: Let the checkpoint load models and code that it names.
        **options: Further arguments of `ServedPolicy`.

    Raises:
        CheckpointError: There is none, or it cannot be loaded.
    """
    directory = CheckpointDirectory(checkpoints_dir, trust_checkpoint=trust_checkpoint)
    newest = directory.resolve(checkpoint)
    older = directory.older(newest) if checkpoint is None else []
    while True:
        found = directory.checkpoint(newest)
        asked = None if codec is None else require_codec(codec, "policy.codec")
        contract = found.verify(asked, fps)
        choose_threads(contract)
        try:
            found.require_finite()
            policy = ServedPolicy(found, contract, **options)
            policy.require_fit()
            return policy
        except UnfitModel as error:
            if not older:
                raise
            print(f"passed over: {error}", file=sys.stderr, flush=True)
            newest = older.pop(0)
