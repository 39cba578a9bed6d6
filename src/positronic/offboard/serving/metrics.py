"""Server metrics for Prometheus and for the status page."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from positronic.offboard.models.store import ModelStore
from positronic.offboard.serving.channel import Reason, Timing

LATENCY_COLUMNS = ("at", "pre_ms", "queue_ms", "infer_ms", "post_ms", "batch_size")
LATENCY_ROWS = 600
LatencyRow = tuple[float, float, float, float, float, int]
# A state policy takes 1 ms, a large one on a CPU a second; longer waits are refused by the queue.
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)
STEPS = {
    "pre": "decoding and encoding an observation",
    "queue": "waiting for the model",
    "infer": "predicting, as a batch",
    "post": "decoding and sending actions",
}


class Metrics:
    """Counts answers and failures; called in the event loop alone."""

    def __init__(self, store: ModelStore, sessions: Callable[[], int]) -> None:
        """Register the metrics of one server, in a registry of its own.

        Args:
            store: The models.
            sessions: Returns the number of open sessions.
        """
        self.inferences = 0
        self.last_cost_ms: float | None = None
        self.failures: Counter[str] = Counter()
        self.latency: deque[LatencyRow] = deque(maxlen=LATENCY_ROWS)
        self.registry = prometheus.CollectorRegistry()
        self.registry.register(_Present(store, sessions))
        prometheus.ProcessCollector(registry=self.registry)
        self._opened = self._counter("positronic_sessions", "Sessions opened so far")
        self._inferences = self._counter("positronic_inferences", "Observations answered")
        self._failures = prometheus.Counter(
            "positronic_failures", "Failures", ["reason"], registry=self.registry
        )
        for reason in Reason:
            self._failures.labels(reason.value)
        self._batch_size = self._histogram(
            "positronic_batch_size", "Requests predicted together, as each of them saw it", SIZES
        )
        self._seconds = {
            step: self._histogram(f"positronic_{step}_seconds", f"Time of {what}", SECONDS)
            for step, what in STEPS.items()
        }

    def opened(self) -> None:
        """Count one session that is ready."""
        self._opened.inc()

    def answered(self, timing: Timing) -> None:
        """Count one answer."""
        self.inferences += 1
        self.last_cost_ms = timing.cost_ms
        self._inferences.inc()
        self._seconds["pre"].observe(timing.pre_ms / 1000)
        self._seconds["post"].observe(timing.post_ms / 1000)
        if timing.batch_size:
            self._seconds["queue"].observe(timing.queue_ms / 1000)
            self._seconds["infer"].observe(timing.infer_ms / 1000)
            self._batch_size.observe(timing.batch_size)
        spent = (timing.pre_ms, timing.queue_ms, timing.infer_ms, timing.post_ms)
        self.latency.append((time.time(), *spent, timing.batch_size))

    def failed(self, reason: Reason) -> None:
        """Count one failure."""
        self.failures[reason.value] += 1
        self._failures.labels(reason.value).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return prometheus.generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> prometheus.Counter:
        return prometheus.Counter(name, what, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Iterable[float]) -> prometheus.Histogram:
        return prometheus.Histogram(name, what, registry=self.registry, buckets=tuple(buckets))


class _Present(Collector):
    """Gauges of the present state, collected at each scrape."""

    def __init__(self, store: ModelStore, sessions: Callable[[], int]) -> None:
        self._store, self._sessions = store, sessions

    def collect(self) -> Iterator[GaugeMetricFamily]:
        models = self._store.status()
        loaded = [model for model in models if model.state == "ready"]
        for name, what, value in (
            ("sessions", "Sessions that are open", self._sessions()),
            ("queue_length", "Requests that wait for a model", sum(m.waiting for m in models)),
            ("models_loaded", "Checkpoints in memory", len(loaded)),
            ("model_bytes", "Bytes of their weights", sum(m.nbytes for m in loaded)),
        ):
            yield GaugeMetricFamily(f"positronic_{name}", what, value=value)
