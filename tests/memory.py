"""Memory of the tests: a bound for each process, and the tests that made it grow.

The peak of each process that ran tests is printed at the end, and more than ``LIMIT`` fails the
run. With ``TESTS_MEMORY=1`` in the environment, the tests that raised it most are printed, too.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Each of two processes that run `make test` came to 2.3 to 2.6 GiB. End-to-end tests train policies
# of full size in their own process.
LIMIT, LIMIT_E2E = 3 << 30, 5 << 30
GROWN = 128 << 20
SHOWN = 15

_peaks: dict[str, int] = {}
_growths: list[tuple[int, int, str]] = []
_wanted = bool(os.environ.get("TESTS_MEMORY"))
_kept = 0  # bytes resident after the last _give_back


def memory(field: str = "VmRSS") -> int:
    """Bytes that this process has resident; the most it ever had for ``VmHWM``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return 0


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fail where the peak of this process rises by more than ``size`` bytes meanwhile."""
    before = memory("VmHWM")
    yield
    grown = memory("VmHWM") - before
    assert grown <= size, f"the peak of memory rose by {grown} bytes; expected at most {size}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    before = memory("VmHWM")
    result = yield
    # A trainer and what it trained hold each other, optimizer and all, until they are collected.
    if memory() - _kept > GROWN:
        _give_back()
    if _wanted:
        now = memory("VmHWM")
        _growths.append((now - before, now, item.nodeid))
    return result


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # a worker of pytest-xdist, which has no terminal
        output["memory"] = {"peak": memory("VmHWM"), "growths": _largest()}
        return
    if session.config.getoption("numprocesses", None) in (None, 0):
        _peaks["this process"] = memory("VmHWM")
    limit = _limit(session.config)
    if any(peak > limit for peak in _peaks.values()) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("memory")
    if told is not None:
        _peaks[node.gateway.id] = told["peak"]
        _growths.extend(map(tuple, told["growths"]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    limit = _limit(terminalreporter.config)
    for name, peak in sorted(_peaks.items()):
        line = f"{name}: at most {peak / 2**30:.2f} GiB of memory"
        if peak > limit:
            line += (
                f", more than the {limit / 2**30:g} GiB allowed (TESTS_MEMORY=1 names the tests)"
            )
        terminalreporter.write_line(line, red=peak > limit)
    if _wanted:
        terminalreporter.section("tests that raised the peak of their process most")
        for growth, now, test in _largest():
            terminalreporter.write_line(f"{growth / 2**20:+8.0f} MiB to {now / 2**20:6.0f}  {test}")


def _limit(config: pytest.Config) -> int:
    return LIMIT_E2E if config.getoption("markexpr", "") == "e2e" else LIMIT


def _give_back() -> None:
    """Free what only cycles and caches hold, and what the allocators keep."""
    global _kept
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()  # exports leave their graphs, with the weights in them
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    gc.unfreeze()
    gc.collect()
    # With LeRobot imported a collection takes seconds; tests that ask for one need not look at
    # that again.
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    _kept = memory()


def _largest() -> list[tuple[int, int, str]]:
    return sorted(_growths, reverse=True)[:SHOWN]
