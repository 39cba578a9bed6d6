"""Benchmark: latency of a robot's requests while somebody attacks the server, and without.

python benchmarks/attacks.py [--seconds=4] [--only=TEXT] [--source=DIR]

A server whose model computes nothing, one robot that sends an image 30 times a second, and one
attacker at a time, each in a process of its own. Attackers give way to the others (``nice 19``): on
a machine of their own they would take none of this one's processor. ``--source`` serves with the
package in another directory, such as an older version. Prints one table.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from tests.positronic.offboard.faults import attacks  # noqa: E402 - they lie beside, not installed
from tests.positronic.offboard.faults.process import ServerProcess, server_process  # noqa: E402
from tests.positronic.offboard.faults.sockets import (  # noqa: E402
    binary,
    open_session,
    open_socket,
)
from tests.positronic.offboard.running import ask, raw, ready  # noqa: E402

RATE_HZ = 30
SESSIONS, UNFINISHED, CONNECTIONS = 10, 40, 1000
LARGE = ("a key of 16 MB", "a dtype of 16 MB", "a black image of 8 million pixels")


def messages(port: int) -> None:
    """Send each of the dear messages in turn, over ten sessions."""
    frames = [binary(attacks.message(name)) for name in attacks.MESSAGES]
    _send_in_turn(port, frames)


def _send_in_turn(port: int, frames: list[bytes]) -> None:
    sessions = [open_session(port) for _ in range(SESSIONS)]
    for frame, session in zip(itertools.cycle(frames), itertools.cycle(sessions), strict=False):
        session.sendall(frame)
        session.recv(1 << 16)


def message(name: str) -> Callable[[int], None]:
    """Give what sends one message again and again, over ten sessions."""

    def send(port: int) -> None:
        _send_in_turn(port, [binary(attacks.message(name))])

    return send


def flood(name: str) -> Callable[[int], None]:
    """Give what sends small frames, and comes back when it has been refused."""

    def send(port: int) -> None:
        small = attacks.small_frames(name)
        while True:
            with open_session(port) as session:
                session.settimeout(1.0)
                small(session)

    return send


def unfinished(port: int) -> None:
    """Hold messages of 15 MB that never end, and begin them again when they are refused."""
    held = [attacks.unfinished(port) for _ in range(UNFINISHED)]
    for number in itertools.cycle(range(UNFINISHED)):
        held[number].close()
        held[number] = attacks.unfinished(port)


def requests(*sent: bytes) -> Callable[[int], None]:
    """Give what sends requests, each on a connection of its own, and reads its answer."""

    def send(port: int) -> None:
        for request in itertools.cycle(sent):
            attacks.answer(port, request)

    return send


def held(sent: bytes) -> Callable[[int], None]:
    """Give what opens connections, sends so much on each, and holds them."""

    def send(port: int) -> None:
        open_ones = []
        for _ in itertools.count():
            with contextlib.suppress(OSError):
                opened = open_socket(port, receive_buffer=4096)
                opened.settimeout(0.1)
                open_ones.append(opened)
                opened.sendall(sent)
            if len(open_ones) > CONNECTIONS:
                open_ones.pop(0).close()

    return send


ATTACKS: dict[str, Callable[[int], None]] = {
    **{f"B3: {name}": message(name) for name in LARGE},
    "B3: all 21 messages in turn": messages,
    "B4: pages of other sites": requests(
        *(sent for sent, _ in attacks.OPEN_REQUESTS.values()), attacks.head(b"Host: http://[")
    ),
    **{f"B5: {name}": flood(name) for name in attacks.FLOODS[:4]},
    "B5: 40 unfinished messages": unfinished,
    "B5: heads that are too long": requests(
        *(sent for sent, status in attacks.REQUESTS.values() if status == 431)
    ),
    "B5: bodies that never come": held(attacks.head(attacks.HOST, b"Content-Length: 1000")),
    "B5: pipelined requests that nobody reads": held((attacks.STATUS + b"\r\n") * 2000),
    "B5: connections that ask for nothing": held(b""),
}


def robot(port: int) -> None:
    """Ask at an even pace; answer each line with the latencies in milliseconds since the last."""
    import select

    image = bytes(224 * 224 * 3)
    latencies: list[float] = []
    with raw(port) as session:
        ready(session)
        print("ready", flush=True)
        due = time.perf_counter()
        while True:
            due = max(due + 1 / RATE_HZ, time.perf_counter())
            while (left := due - time.perf_counter()) > 0:
                if select.select([sys.stdin], [], [], left)[0]:
                    if not sys.stdin.readline():
                        return
                    print(json.dumps(latencies), flush=True)
                    latencies.clear()
            began = time.perf_counter()
            assert ask(session, grip=0.5, image=image)["result"][0]["target_grip"] == 0.5
            latencies.append((time.perf_counter() - began) * 1000)


@contextlib.contextmanager
def side(*words: str, niceness: int = 0) -> Iterator["subprocess.Popen[str]"]:
    """Run this program's other side until the block ends."""
    process = subprocess.Popen(
        [sys.executable, str(HERE), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.nice(niceness) and None,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def latencies(asking: "subprocess.Popen[str]") -> list[float]:
    """Take what the robot has measured."""
    assert asking.stdin is not None
    assert asking.stdout is not None
    asking.stdin.write("\n")
    asking.stdin.flush()
    taken: list[float] = json.loads(asking.stdout.readline())
    return taken


def row(
    name: str, server: ServerProcess, asking: "subprocess.Popen[str]", seconds: float
) -> list[Any]:
    """Let the robot ask for a while."""
    latencies(asking)
    server.stall()
    used, began = server.cpu_seconds, time.monotonic()
    time.sleep(seconds)
    measured = latencies(asking) or [float("nan")]
    share = (server.cpu_seconds - used) / (time.monotonic() - began)
    p99 = statistics.quantiles(measured, n=100)[98] if len(measured) > 1 else measured[0]
    return [
        name,
        len(measured),
        f"{statistics.median(measured):.1f}",
        f"{p99:.1f}",
        f"{max(measured):.1f}",
        f"{server.stall() * 1000:.0f}",
        f"{share * 100:.0f}",
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--source")
    parser.add_argument("--side", nargs=2)
    options = parser.parse_args()
    if options.side:
        name, port = options.side
        robot(int(port)) if name == "robot" else ATTACKS[name](int(port))
        return
    print("| attack | answers | p50, ms | p99, ms | longest, ms | loop busy, CPU-ms | CPU, % |")
    print("|---|---|---|---|---|---|---|", flush=True)
    chosen = [name for name in ATTACKS if options.only in name]
    with tempfile.TemporaryDirectory() as folder:
        for name in ["none", *chosen, "none"]:
            if options.source:
                os.environ["PYTHONPATH"] = options.source
            with server_process(Path(folder) / "log", stalls=True) as server:
                os.environ.pop("PYTHONPATH", None)
                server.wait_until_ready()
                with contextlib.ExitStack() as stack:
                    asking = stack.enter_context(side("--side", "robot", str(server.port)))
                    assert asking.stdout is not None
                    assert asking.stdout.readline().strip() == "ready"
                    if name != "none":
                        words = ("--side", name, str(server.port))
                        stack.enter_context(side(*words, niceness=19))
                        time.sleep(1.5)  # for it to begin
                    cells = row(name, server, asking, options.seconds)
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
