"""Benchmark: inference server with many robots at once, one robot alone, a thousand sessions.

    python benchmarks/serving.py [--rounds=3] [--only=wire,alone,many,memory] [--policies=64,224]
    python benchmarks/serving.py --only=wire --beside=/path/to/another/version/src

``many``: robots that each ask again as soon as they have an answer, 1 to 32 of them, of a server
that batches (``--max_batch=16``) and of one that does not (``--max_batch=1``), in turns; with the
policy in torch, and as ``--backend=auto`` chooses. ``alone``: one robot with the project's client,
beside the policy called natively in a process of its own, in turns: what server and client add, and
what the exported policy saves. ``wire``: the same bytes to an echo, and to our server with a
model that computes nothing; with ``--beside`` to that of another version, too, in turns.
``memory``: what a server holds after 250, 500 and 1,000 sessions that each asked once.

The servers are ``python -m positronic.vendors.lerobot.server`` with ACTs of random weights; robots
are another process. Whoever has no turn is stopped.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from serving_models import KINDS, Kind, save
from serving_sides import Echo, Paused, Server, Still, side
from turns import Side, end_as_asked, quiet, spread

HERE = Path(__file__).resolve()
ROBOTS = (1, 2, 4, 8, 16, 32)
BATCHES = (16, 1)
MIB = 1 << 20


@contextmanager
def turn(server: Paused) -> Iterator[int]:
    """Let a server run; gives its port."""
    server.go_on()
    try:
        yield server.port
    finally:
        server.pause()


def compare_many(kind: str, run: Path, options: argparse.Namespace) -> None:
    """Print throughput and latency of a policy for many robots, batched and not."""
    for backend in options.backends:
        servers = {
            batch: Server(
                f"{kind}-{backend}-{batch}",
                run,
                options.folder / f"{kind}-{backend}-{batch}.log",
                options.threads,
                f"--max_batch={batch}",
                f"--backend={backend}",
            )
            for batch in BATCHES
        }
        robots = side("robots", options.folder, kind=kind, side="robots")
        chosen = " and ".join(sorted({server.backend for server in servers.values()}))
        print(f"\n### {KINDS[kind].name}, --backend={backend} ({chosen})\n")
        print("| robots | max_batch | answers/s | p50, ms | p95, ms | p99, ms ", end="")
        print("| CPU-ms an answer | batched over not | by processor time |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        try:
            for count in ROBOTS:
                many(servers, robots, count, seconds(kind, count, options), options.rounds)
        finally:
            for process in (robots, *servers.values()):
                process.end()


def seconds(kind: str, robots: int, options: argparse.Namespace) -> float:
    """How long a turn lasts: a few answers for each robot, at least."""
    answer = 0.06 if kind == "224" else 0.02
    return max(float(options.seconds), 3 * robots * answer)


def many(servers: dict[int, Server], robots: Side, count: int, turn_s: float, rounds: int) -> None:
    """Print the rows for so many robots."""
    found: dict[int, list[dict[str, Any]]] = {batch: [] for batch in servers}
    for number in range(rounds):
        for batch in list(servers) if number % 2 else list(servers)[::-1]:
            with turn(servers[batch]) as port:
                question = {"port": port, "sessions": count, "seconds": turn_s}
                used = servers[batch].cpu_seconds()
                answer = robots.ask(question)
                used = servers[batch].cpu_seconds() - used
                found[batch].append({**answer, "cpu": used / answer["answers"]})
    rates = {batch: [each["rate"] for each in found[batch]] for batch in servers}
    cpus = {batch: [each["cpu"] for each in found[batch]] for batch in servers}
    faster = [a / b for a, b in zip(rates[BATCHES[0]], rates[BATCHES[1]], strict=True)]
    cheaper = [b / a for a, b in zip(cpus[BATCHES[0]], cpus[BATCHES[1]], strict=True)]
    for batch, rounds_of in found.items():
        latencies = np.concatenate([each["latencies"] for each in rounds_of]) * 1e3
        p50, p95, p99 = np.percentile(latencies, (50, 95, 99))
        row = [str(count), str(batch), spread(rates[batch], 1)]
        row += [f"{p50:.1f}", f"{p95:.1f}", f"{p99:.1f}"]
        row.append(f"{1e3 * statistics.median(cpus[batch]):.1f}")
        row += [spread(faster), spread(cheaper)] if batch == BATCHES[0] else ["", ""]
        print(f"| {' | '.join(row)} |", flush=True)


def compare_alone(kind: str, run: Path, options: argparse.Namespace) -> None:
    """Print what one robot waits for, beside the policy called natively."""
    servers = {
        backend: Server(
            f"{kind}-{backend}",
            run,
            options.folder / f"{kind}-{backend}.log",
            options.threads,
            f"--backend={backend}",
        )
        for backend in options.backends
    }
    client = side("client", options.folder, kind=kind, side="client")
    native = side("bare", options.folder, options.threads, kind=kind, side="bare", run=str(run))
    walls: dict[str, list[float]] = {"native": [], **{backend: [] for backend in servers}}
    found: dict[str, list[dict[str, float]]] = {backend: [] for backend in servers}
    differences = {}
    try:
        expected = native.ask({"actions": True})
        for backend, server in servers.items():
            with turn(server) as port:
                differences[backend] = difference(
                    client.ask({"port": port, "actions": True}), expected
                )
        for number in range(2 * options.rounds):
            for name in list(walls) if number % 2 else list(walls)[::-1]:
                if name == "native":
                    walls[name].append(statistics.median(native.ask({"calls": options.calls})))
                    continue
                with turn(servers[name]) as port:
                    answer = client.ask({"port": port, "calls": options.calls})
                walls[name].append(statistics.median(answer["took"]))
                found[name] += [
                    {"total": 1e3 * took, **timing}
                    for took, timing in zip(answer["took"], answer["timings"], strict=True)
                ]
    finally:
        for process in (client, native, *servers.values()):
            process.end()
    chosen = {name: server.backend for name, server in servers.items()}
    report_alone(KINDS[kind], chosen, walls, found, differences)


def report_alone(
    kind: Kind,
    chosen: dict[str, str],
    walls: dict[str, list[float]],
    found: dict[str, list[dict[str, float]]],
    differences: dict[str, float],
) -> None:
    """Print the tables of one robot."""
    milliseconds = {name: [1e3 * wall for wall in values] for name, values in walls.items()}
    print(f"\n### One robot, {kind.name}\n")
    print("| what | ms | over the native call | largest difference of an action |")
    print("|---|---|---|---|")
    print(f"| native call, eager | {spread(milliseconds['native'])} | | |")
    for name in found:
        ratio = [a / b for a, b in zip(walls[name], walls["native"], strict=True)]
        row = f"{spread(milliseconds[name])} | {spread(ratio)} | {differences[name]:.1e}"
        print(f"| served, --backend={name} ({chosen[name]}) | {row} |")
    print("\n| served with | added, ms | pre | queue | post | wire and client |", end="")
    print(" infer, ms | served less native, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in found.items():
        steps = {step: [row[f"{step}_ms"] for row in rows] for step in STEPS}
        added = [row["total"] - row["infer_ms"] for row in rows]
        wire = [row["total"] - sum(row[f"{step}_ms"] for step in STEPS) for row in rows]
        columns = [name, *(median(values) for values in (added, steps["pre"], steps["queue"]))]
        columns += [median(steps["post"]), median(wire), median(steps["infer"])]
        pairs = zip(milliseconds[name], milliseconds["native"], strict=True)
        columns.append(spread([a - b for a, b in pairs]))
        print(f"| {' | '.join(columns)} |", flush=True)


STEPS = ("pre", "queue", "infer", "post")


def median(values: Sequence[float]) -> str:
    """For a table of milliseconds."""
    return f"{statistics.median(values):.3f}"


def difference(ours: Any, theirs: Any) -> float:
    """The largest between the numbers of two nested answers; times and names are not compared."""
    if isinstance(theirs, dict):
        return max(difference(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        if len(ours) != len(theirs):
            sys.exit(f"error: {len(ours)} actions where the policy gives {len(theirs)}")
        return max(difference(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, str):
        return 0.0 if ours == theirs else float("inf")
    return abs(float(ours) - float(theirs))


def measure_wire(options: argparse.Namespace) -> None:
    """Print the round trip of the same bytes without a policy or a server of ours."""
    echo = Echo(options.folder)
    print("\n| the bare wire, one robot | round trip, ms | p95 | p99 |")
    print("|---|---|---|---|")
    for kind in options.policies:
        robots = side("robots", options.folder, kind=kind, side="robots")
        found = robots.ask({"port": echo.port, "sessions": 1, "seconds": 2.0})["latencies"]
        robots.end()
        p50, p95, p99 = np.percentile(found, (50, 95, 99)) * 1e3
        print(f"| {KINDS[kind].name} | {p50:.3f} | {p95:.3f} | {p99:.3f} |", flush=True)
    echo.end()
    for kind in options.policies:
        compare_wire(kind, options)


VISITS, ASKED = 100, 200
HTTP = ("/readyz", "/metrics", "/api/v1/status")


def compare_wire(kind: str, options: argparse.Namespace) -> None:
    """Print what our server adds to the wire, beside that of another version if one is given."""
    sources = {"this version": HERE.parent.parent / "src"}
    if options.beside:
        sources["the other"] = options.beside.resolve()
    servers = {
        name: Still(name, source, options.folder / f"still-{number}.log")
        for number, (name, source) in enumerate(sources.items())
    }
    robots = side("robots", options.folder, kind=kind, side="robots")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    try:
        for number in range(options.rounds):
            for name in list(servers) if number % 2 else list(servers)[::-1]:
                with turn(servers[name]) as port:
                    found[name].append(measure_still(servers[name], robots, port, options.seconds))
    finally:
        for process in (robots, *servers.values()):
            process.end()
    print(f"\n| a model that computes nothing, {KINDS[kind].name} |", end="")
    print("".join(f" {name} |" for name in found), f"\n|---|{'---|' * len(found)}")
    for what in found["this version"][0]:
        cells = [spread([each[what] for each in rounds], 3) for rounds in found.values()]
        print(f"| {what} | {' | '.join(cells)} |", flush=True)


def measure_still(server: Paused, robots: Side, port: int, turn_s: float) -> dict[str, float]:
    """Measure one turn of a server."""
    row = {}
    for count in (1, 8):
        used = server.cpu_seconds()
        answer = robots.ask({"port": port, "sessions": count, "seconds": turn_s})
        used = server.cpu_seconds() - used
        p50, p99 = np.percentile(answer["latencies"], (50, 99)) * 1e3
        words = "one robot" if count == 1 else f"{count} robots"
        row[f"{words}, p50, ms"], row[f"{words}, p99, ms"] = float(p50), float(p99)
        row[f"{words}, answers/s"] = answer["rate"]
        row[f"{words}, CPU-ms an answer"] = 1e3 * used / answer["answers"]
    used, began = server.cpu_seconds(), time.perf_counter()
    robots.ask({"port": port, "visits": VISITS})
    row["a session with one answer, ms"] = 1e3 * (time.perf_counter() - began) / VISITS
    row["a session with one answer, CPU-ms"] = 1e3 * (server.cpu_seconds() - used) / VISITS
    for path in HTTP:
        used = server.cpu_seconds()
        for _ in range(ASKED):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
                response.read()
        row[f"GET {path}, CPU-ms"] = 1e3 * (server.cpu_seconds() - used) / ASKED
    return row


def measure_memory(kind: str, run: Path, options: argparse.Namespace) -> None:
    """Print what a server holds while a thousand sessions come and go."""
    import psutil

    log = options.folder / f"memory-{kind}.log"
    server = Server(f"memory-{kind}", run, log, options.threads)
    robots = side("robots", options.folder, kind=kind, side="robots")
    process = psutil.Process(server.process.pid)
    print(f"\n| sessions before, {KINDS[kind].name} | resident, MiB | open files | threads |")
    print("|---|---|---|---|")
    try:
        with turn(server) as port:
            done = 0
            for target in (10, 250, 500, 1000):
                robots.ask({"port": port, "visits": target - done})
                done = target
                resident = process.memory_info().rss / MIB
                row = f"{resident:.1f} | {process.num_fds()} | {process.num_threads()}"
                print(f"| {done} | {row} |", flush=True)
    finally:
        for ended in (robots, server):
            ended.end()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", default=3, type=int, help="turns of each side")
    parser.add_argument("--seconds", default=1.5, type=float, help="of a turn, at least")
    parser.add_argument("--calls", default=20, type=int, help="of one robot in a turn")
    parser.add_argument("--only", default="wire,alone,many,memory", help="tables, by comma")
    parser.add_argument("--policies", default="64,224", help="by comma")
    parser.add_argument("--backends", default="torch,auto", help="by comma")
    parser.add_argument("--runs", type=Path, help="keep the checkpoints there for another run")
    parser.add_argument("--beside", type=Path, help="src of another version, for wire")
    parser.add_argument("--threads", default=len(os.sched_getaffinity(0)), type=int)
    options = parser.parse_args()
    options.policies, options.backends = options.policies.split(","), options.backends.split(",")
    end_as_asked()
    with tempfile.TemporaryDirectory() as name:
        options.folder = Path(name)
        print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores", end=", ")
        print(f"load {os.getloadavg()[0]:.1f} before", flush=True)
        with quiet(options.folder / "saving.log"):
            kept = options.runs or options.folder
            wanted = () if options.only == "wire" else options.policies
            runs = {kind: save(KINDS[kind], kept / kind) for kind in wanted}
        tables = {"alone": compare_alone, "many": compare_many, "memory": measure_memory}
        for table, kind in product(options.only.split(","), options.policies):
            if table == "wire":
                if kind == options.policies[0]:
                    measure_wire(options)
            elif table != "memory" or kind == options.policies[0]:
                tables[table](kind, runs[kind], options)


if __name__ == "__main__":
    main()
