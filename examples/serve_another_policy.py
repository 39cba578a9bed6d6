"""Server for a policy that is not LeRobot's: a controller that holds the gripper above an object.

``python examples/serve_another_policy.py`` listens on port 8001. Robots connect to it
(``robot_client_loop.py`` beside this file), and so does the simulator::

    positronic-inference sim --policy=.remote --policy.port=8001 --driver.simulation_time=5
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positronic.errors import CheckpointError, CodecError
from positronic.geom import pose_to_wire
from positronic.offboard.models import ModelStore
from positronic.offboard.serving.process import bind, run_to_the_end
from positronic.offboard.serving.server import serve_forever
from positronic.policy import Action

INPUTS = ("robot_state.ee_pose", "object_poses")
HEIGHT = np.array([0.0, 0.0, 0.15])  # metres above the first object
DOWN = np.array([0.0, 1.0, 0.0, 0.0])  # quaternion wxyz of a gripper that points down
GAIN, CHUNK, FPS = 0.3, 5, 15.0


class Controller:
    """The model: one for all robots. A network would have its weights here."""

    nbytes = 0  # of memory, so that a server of many models knows which of them fit

    def __init__(self) -> None:
        # What clients are told: how fast actions are to be played, and which signals to send.
        contract = {"inputs": list(INPUTS)}
        self.meta = {"type": "controller", "action_fps": FPS, "contract": contract}

    def new_session(self, context: Mapping[str, Any] | None = None) -> "Episode":
        """A robot has connected."""
        return Episode(self)

    def predict(self, requests: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Answer what several robots asked at the same time, in order."""
        gripper, cube = np.split(np.stack(requests), 2, axis=-1)
        goal, chunk = cube + HEIGHT, []
        for _ in range(CHUNK):
            gripper = gripper + GAIN * (goal - gripper)
            turned = np.broadcast_to(DOWN, (len(requests), 4))
            chunk.append(pose_to_wire(np.concatenate([gripper, turned], axis=-1)))
        return list(np.stack(chunk, axis=1))

    def close(self) -> None:
        """There is nothing to give back."""


class Episode:
    """The session of one robot: from an observation to a request, from a prediction to actions."""

    def __init__(self, model: Controller) -> None:
        self._model, self.meta = model, model.meta

    def prepare(self, obs: Mapping[str, Any]) -> NDArray[np.float64]:
        """Check what came; a CodecError is told to the client, and the session goes on."""
        missing = [name for name in INPUTS if np.size(obs.get(name, ())) < 7]
        if missing:
            raise CodecError(f"the controller needs {' and '.join(missing)}: [x y z qw qx qy qz]")
        return np.concatenate([np.asarray(obs[name], np.float64)[:3] for name in INPUTS])

    def finish(self, prediction: NDArray[np.float64]) -> list[Action]:
        """Say it as robots understand it: targets, and when they are due."""
        commands = [{"type": "cartesian_pos", "pose": pose} for pose in prediction]
        return [
            {"robot_command": command, "target_grip": 1.0, "timestamp": i / FPS}
            for i, command in enumerate(commands)
        ]

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Do all three steps at once, for those who use the model without a server."""
        return self.finish(self._model.predict([self.prepare(obs)])[0])

    def close(self) -> None:
        """The robot has left."""


class OnlyOne:
    """Where the server finds models by their ids; a folder of checkpoints has many."""

    def ids(self) -> list[str]:
        """List what there is."""
        return ["hover"]

    def resolve(self, requested: str) -> str:
        """Find the id that a client's words mean."""
        if requested in self.ids():
            return requested
        raise CheckpointError(f"Checkpoint not found: {requested}. Available: {self.ids()}")

    def nbytes(self, model_id: str) -> int:
        """Say, before it is loaded, how much memory it will take."""
        return Controller.nbytes

    def load(self, model_id: str, say: Callable[[str], None]) -> Controller:
        """Load it and warm it up, so that the first robot does not wait for imports and caches."""
        model = Controller()
        model.predict([np.zeros(6)])
        return model


def main() -> None:
    """Serve until Ctrl-C or SIGTERM, on this machine alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8001, help="0 takes a free one")
    listener = bind("127.0.0.1", parser.parse_args().port)
    address = f"ws://127.0.0.1:{listener.getsockname()[1]}"
    store = ModelStore(OnlyOne(), "hover", memory_bytes=1_000_000)
    run_to_the_end(
        serve_forever(
            store, listener, "127.0.0.1", lambda model: print(f"serving on {address}", flush=True)
        )
    )


if __name__ == "__main__":
    main()
