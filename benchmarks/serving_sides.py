"""Processes of ``serving.py``: a server, the robots that ask it, and the bare policy.

python serving_sides.py --side JSON
"""

import asyncio
import atexit
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from serving_models import KINDS, observation
from turns import Child, Side, serve
from websockets.asyncio.client import ClientConnection, connect

HERE = Path(__file__)
FRAMES = 4  # different observations that a robot sends in turn
REPLY = 10_000  # bytes that a hundred actions take, about


class Paused(Child):
    """A server, stopped while others have their turn."""

    port: int

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far."""
        import psutil

        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    def pause(self) -> None:
        """Stop it."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Kill it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
        atexit.unregister(self.end)


class Server(Paused):
    """``python -m positronic.vendors.lerobot.server``."""

    def __init__(self, name: str, run: Path, log: Path, threads: int, *flags: str) -> None:
        command = [sys.executable, "-m", "positronic.vendors.lerobot.server"]
        command += [f"--checkpoints_dir={run}", "--port=0", "--rate_limit=0", *flags]
        env = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        super().__init__(name, command, log, env, group=True)
        # It is stopped most of the time, and would not see that nobody asks any more.
        atexit.register(self.end)
        match = re.search(r":(\d+)$", self.line().strip())
        assert match is not None
        self.port = int(match[1])
        while " serving " not in (line := self.line()):
            pass
        found = re.search(r" with (\w+) ", line)
        self.backend = found[1] if found else "torch"
        self.pause()


class Still(Paused):
    """``still_server.py``, with the packages that lie in ``source``."""

    def __init__(self, name: str, source: Path, log: Path) -> None:
        command = [sys.executable, str(HERE.with_name("still_server.py"))]
        super().__init__(name, command, log, {"PYTHONPATH": str(source)}, group=True)
        atexit.register(self.end)
        found = self.answer()
        if not Path(found["source"]).is_relative_to(source):
            sys.exit(f"error: {name} runs {found['source']} and not what lies in {source}")
        self.port = found["port"]
        self.pause()


def side(name: str, folder: Path, threads: int = 1, **job: Any) -> Side:
    """Start one of the other processes."""
    env = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return Side(name, HERE, job, folder / f"{name}.log", env)


def robots(job: dict[str, Any]) -> None:
    """Robots that each ask again as soon as they have an answer; raw frames, made before."""
    from positronic.offboard import wire

    kind = KINDS[job["kind"]]
    frames = [wire.pack(observation(kind, seed)) for seed in range(FRAMES)]

    def answer(question: dict[str, Any]) -> Any:
        return asyncio.run((_visit if "visits" in question else _load)(frames, **question))

    serve(answer)


async def _visit(frames: list[bytes], port: int, visits: int) -> None:
    for number in range(visits):
        async with _session(port) as connection:
            await connection.send(frames[number % FRAMES])
            _check(await connection.recv())


@asynccontextmanager
async def _session(port: int) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{port}/api/v1/session"
    async with connect(url, compression=None, max_size=None, proxy=None) as connection:
        while b"ready" not in (frame := await connection.recv()):
            assert b"loading" in frame, frame
        yield connection


def _check(reply: str | bytes) -> None:
    if b"result" not in reply[:10]:
        raise SystemExit(f"the server answered {reply[:300]!r}")


async def _load(frames: list[bytes], port: int, sessions: int, seconds: float) -> dict[str, Any]:
    opened = [asyncio.Event() for _ in range(sessions)]
    start, stop = asyncio.Event(), asyncio.Event()
    done: list[tuple[float, float]] = []  # when, and after how long

    async def robot(number: int) -> None:
        async with _session(port) as connection:
            opened[number].set()
            await start.wait()
            for turn in range(number, sys.maxsize):
                began = time.perf_counter()
                await connection.send(frames[turn % FRAMES])
                _check(await connection.recv())
                ended = time.perf_counter()
                done.append((ended, ended - began))
                if stop.is_set():
                    return

    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            group.create_task(robot(number))
        for event in opened:
            await event.wait()
        start.set()
        # The first answers, to robots that begin together, are not counted.
        await asyncio.sleep(min(0.5, seconds / 4))
        begin = time.perf_counter()
        await asyncio.sleep(seconds)
        stop.set()
        end = time.perf_counter()
    # From answer to answer: those of a batch come at once, and a turn is not a number of batches.
    times = [when for when, _ in done]
    first = max((when for when in times if when <= begin), default=begin)
    last = max((when for when in times if when <= end), default=end)
    counted = [took for when, took in done if first < when <= last]
    if not counted:
        sys.exit("no robot was answered within a turn; give it more --seconds")
    rate = len(counted) / (last - first)
    return {"rate": rate, "latencies": counted, "answers": len(done)}


def bare(job: dict[str, Any]) -> None:
    """The policy called natively: LeRobot's batch, preprocessor, forward and postprocessor."""
    import torch
    from lerobot.policies.utils import prepare_observation_for_inference

    from positronic.vendors.lerobot.serving.backends.torch_backend import TorchBackend
    from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory

    directory = CheckpointDirectory(job["run"])
    checkpoint = directory.checkpoint(directory.resolve())
    codec = checkpoint.verify().make_codec()
    with redirect_stdout(sys.stderr):  # LeRobot prints
        backend = TorchBackend(checkpoint, "cpu")
    kind = KINDS[job["kind"]]
    steps = backend.policy.config.n_action_steps
    encoded = [codec.encode(observation(kind, seed)) for seed in range(FRAMES)]

    def call(number: int) -> Any:
        with torch.inference_mode():
            arrays = {key: value.copy() for key, value in encoded[number % FRAMES].items()}
            batch = prepare_observation_for_inference(arrays, torch.device("cpu"))
            chunk = backend.policy.predict_action_chunk(backend.pre(batch))[:, :steps]
            return backend.post(chunk)[0].numpy()

    def answer(question: dict[str, Any]) -> Any:
        if "actions" in question:
            return [[codec.decode(action) for action in call(n)] for n in range(FRAMES)]
        took = []
        for number in range(question["calls"]):
            began = time.perf_counter()
            call(number)
            took.append(time.perf_counter() - began)
        return took

    call(0)
    serve(lambda question: _plain(answer(question)))


def client(job: dict[str, Any]) -> None:
    """One robot with the project's own client, pictures and all."""
    from positronic.offboard.client import InferenceClient

    kind = KINDS[job["kind"]]
    observations = [observation(kind, seed) for seed in range(FRAMES)]

    def answer(question: dict[str, Any]) -> Any:
        with InferenceClient("127.0.0.1", question["port"]).new_session() as session:
            if "actions" in question:
                return [session.infer(obs) for obs in observations]
            took, timings = [], []
            for number in range(question["calls"] + 2):
                began = time.perf_counter()
                session.infer(observations[number % FRAMES])
                took.append(time.perf_counter() - began)
                timings.append(dict(session.timing))
        return {"took": took[2:], "timings": timings[2:]}

    serve(lambda question: _plain(answer(question)))


class Echo(Child):
    """A server that answers with as many bytes as ours, and computes nothing: the bare wire."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(HERE), "--side", json.dumps({"side": "echo"})]
        super().__init__("echo", command, folder / "echo.log")
        self.answer()
        self.port: int = self.ask("port")


def echo(job: dict[str, Any]) -> None:
    """The other end of `Echo`."""
    from websockets.sync.server import ServerConnection
    from websockets.sync.server import serve as listen

    def answer(connection: ServerConnection) -> None:
        connection.send(b"ready")
        for _ in connection:
            connection.send(b"\x81\xa6result" + bytes(REPLY))

    with listen(answer, "127.0.0.1", 0, compression=None, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        serve(lambda question: server.socket.getsockname()[1])


def _plain(value: Any) -> Any:
    """Arrays as lists, for JSON."""
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))


if __name__ == "__main__":
    job = json.loads(sys.argv[2])
    {"robots": robots, "bare": bare, "client": client, "echo": echo}[job.pop("side")](job)
