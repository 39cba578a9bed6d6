"""OpenMP threads of a forward pass on a CPU; set before torch is imported."""

import os

from positronic.codec import Contract

MAX_THREADS = 8


def choose_threads(contract: Contract) -> None:
    """Set OpenMP's variables for a policy, unless they are set already.

    Without images a forward pass takes 1.5 ms and is slower in several threads. Threads that spin
    while they wait would take cores from a simulator on the same machine.
    """
    images = any(f["dtype"] in ("video", "image") for f in contract.features.values())
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0))) if images else 1
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
