import http.client
import subprocess
import sys
from contextlib import closing

import pytest

from tests.positronic.offboard.running import serving
from tests.positronic.offboard.small_models import Source

ENDPOINTS = ("/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/models")
PAGES = ("/", "/status_page/status.css", "/docs", "/docs/docs.js", "/openapi.json")


def request(port: int, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()


def test_head_is_get_without_the_content() -> None:
    with serving(Source(["010000"])) as port:
        for path in (*ENDPOINTS, *PAGES, "/nothing"):
            status, headers, body = request(port, "GET", path)
            assert body
            got, head, nothing = request(port, "HEAD", path)
            assert (got, nothing) == (status, b"")
            assert head.keys() == headers.keys()
            assert head["content-type"] == headers["content-type"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused_in_words(method: str) -> None:
    with serving(Source(["010000"])) as port:
        for path in (*ENDPOINTS, *PAGES):
            status, headers, body = request(port, method, path)
            assert (status, body) == (405, b"Method Not Allowed")
            assert sorted(headers["allow"].split(", ")) == ["GET", "HEAD"]


def test_what_is_not_there_is_said_in_words() -> None:
    with serving(Source(["010000"])) as port:
        for path in ("/nothing", "/api/v1", "/api/v1/session", "/api/v1/models/010000"):
            status, headers, body = request(port, "GET", path)
            assert (status, body) == (404, b"Not Found")
            assert headers["content-type"] == "text/plain; charset=utf-8"


OBSERVED = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.positronic.offboard.running import ask, get, raw, ready, serving
from tests.positronic.offboard.small_models import Source

spans, reader, tracing = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
tracing.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracing)
metrics.set_meter_provider(MeterProvider([reader]))
with serving(Source(["010000"])) as port:
    assert get(port, "/api/v1/status")[0] == 200
    with raw(port) as session:
        ready(session)
        assert ask(session, grip=0)["result"]
found = reader.get_metrics_data()
print(len(spans.get_finished_spans()), found and found.resource_metrics)
"""


def test_an_installed_opentelemetry_is_told_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", OBSERVED], capture_output=True, text=True)
    assert (done.stdout, done.stderr[-2000:]) == ("0 None\n", "")
