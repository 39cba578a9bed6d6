"""Small models whose every move a test can follow, and a source that loads them when it may."""

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from positronic.errors import CheckpointError, CodecError
from positronic.policy import Action

NBYTES = 100


class CountingSession:
    """Counts its own observations; a session that shared state would count those of others."""

    def __init__(self, policy: "CountingPolicy") -> None:
        self.policy = policy
        self.meta = policy.meta
        self.count = 0

    def prepare(self, obs: Mapping[str, Any]) -> Any:
        if "grip" not in obs:
            raise CodecError(f"needs grip; present: {', '.join(sorted(obs)) or 'nothing'}")
        return None if obs.get("queued") else dict(obs)

    def finish(self, prediction: Any) -> list[Action]:
        self.count += 1
        grip = -1.0 if prediction is None else prediction
        commands = {"robot_command": {"type": "reset"}, "target_grip": grip}
        return [{**commands, "count": self.count, "timestamp": i / 10} for i in range(3)]

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        request = self.prepare(obs)
        return self.finish(None if request is None else self.policy.predict([request])[0])

    def close(self) -> None:
        self.policy.closed += 1


class CountingPolicy:
    """Predicts the grip that it is shown.

    In an observation, ``sleep`` (seconds) makes the whole batch slow, ``explode`` makes it fail,
    ``gate`` (an event) holds it up, and ``queued`` needs no prediction.
    """

    def __init__(
        self, name: str, meta: Mapping[str, Any] | None = None, nbytes: int = NBYTES
    ) -> None:
        self.meta: dict[str, Any] = {
            "type": "counting",
            "checkpoint_id": name,
            "action_fps": 10.0,
            **(meta or {}),
        }
        self.nbytes = nbytes
        self.closed = 0
        self.given_back = False
        self.batches: list[list[float]] = []
        self.entered = threading.Semaphore(0)

    def new_session(self, context: Mapping[str, Any] | None = None) -> CountingSession:
        return CountingSession(self)

    def predict(self, requests: Sequence[Any]) -> list[float]:
        assert not self.given_back, "a model that was given back is asked"
        self.batches.append([float(request["grip"]) for request in requests])
        self.entered.release()
        for request in requests:
            if "gate" in request:
                assert request["gate"].wait(20)
            if request.get("explode"):
                raise RuntimeError("secret in /home/operator/file.py")
        time.sleep(max(request.get("sleep", 0) for request in requests))
        return [float(request["grip"]) for request in requests]

    def close(self) -> None:
        self.given_back = True


class Source:
    """Models that load when the test lets them; ``broken`` ones do not."""

    def __init__(self, names: list[str], **meta: Any) -> None:
        self.names, self.meta = names, meta
        self.sizes: dict[str, int] = {}
        """Bytes by name where they are not `NBYTES`."""
        self.estimates: dict[str, int] = {}
        """What is said before the load, where that is not the truth."""
        self.words: dict[str, str] = {}
        """What a load says of itself."""
        self.gates: dict[str, threading.Event] = {}
        self.broken: dict[str, Exception] = {}
        self.loads: list[str] = []
        self.living: weakref.WeakSet[CountingPolicy] = weakref.WeakSet()

    def hold(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())

    def ids(self) -> list[str]:
        if not self.names:
            raise OSError("the disk is gone")
        return list(self.names)

    def resolve(self, requested: str) -> str:
        if requested in self.names:
            return requested
        raise CheckpointError(f"Checkpoint not found: {requested}. Available: {self.names}")

    def nbytes(self, model_id: str) -> int:
        self.resolve(model_id)
        return self.estimates.get(model_id, self.sizes.get(model_id, NBYTES))

    def load(self, model_id: str, say: Callable[[str], None]) -> CountingPolicy:
        self.loads.append(model_id)
        if model_id in self.words:
            say(self.words[model_id])
        if model_id in self.gates:
            assert self.gates[model_id].wait(20)
        if model_id in self.broken:
            raise self.broken[model_id]
        policy = CountingPolicy(model_id, self.meta, self.sizes.get(model_id, NBYTES))
        self.living.add(policy)
        return policy
