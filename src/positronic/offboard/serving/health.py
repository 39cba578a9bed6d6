"""HTTP endpoints for operators: liveness, readiness, Prometheus metrics, status, models."""

import asyncio
import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI, Security
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from foundation.errors import FoundationError
from positronic.dataset.trained_on import dataset_name, dropped
from positronic.offboard.models.store import ModelStatus
from positronic.offboard.serving import responses
from positronic.offboard.serving.metrics import LATENCY_COLUMNS
from positronic.offboard.serving.service import Service, ServingSession

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/livez", "/readyz")


class MetricsText(Response):
    """Response in Prometheus's text format."""

    media_type = CONTENT_TYPE_LATEST


def describe(service: Service) -> responses.Status:
    """Describe the server, its models and sessions, the last answers, and what failed."""
    now = time.monotonic()
    default = service.store.default
    # Not the store's own count, which has the server's warm-up in it.
    using = Counter(session.model_id for session in service.sessions)
    return responses.Status(
        server=_server(service),
        models=[_model(m, default, using[m.id], now) for m in service.store.status()],
        sessions=[_session(session, now) for session in service.sessions],
        latency=responses.Latency(columns=LATENCY_COLUMNS, rows=list(service.metrics.latency)),
        failures=dict(service.metrics.failures),
    )


def _server(service: Service) -> responses.ServerStatus:
    started = datetime.datetime.fromtimestamp(service.started, datetime.UTC)
    return responses.ServerStatus(
        version=version("positronic-lightning"),
        started=started.isoformat(timespec="seconds"),
        uptime_s=time.time() - service.started,
        ready=service.not_ready is None,
        draining=service.draining,
        inferences=service.metrics.inferences,
        last_cost_ms=service.metrics.last_cost_ms,
        max_sessions=service.options.max_sessions,
        memory_bytes=service.store.memory_bytes,
        docs=service.options.docs,
    )


def _model(model: ModelStatus, default: str, sessions: int, now: float) -> responses.ModelStatus:
    def known(key: str) -> str | None:
        value = model.meta.get(key)  # any type: the model's author decides
        return None if value is None else str(value)

    return responses.ModelStatus(
        id=model.id,
        state=model.state,
        default=model.id == default,
        type=known("type"),
        backend=known("backend"),
        precision=known("precision"),
        device=known("device"),
        dataset=dataset_name(model.meta),
        dropped=dropped(model.meta),
        nbytes=model.nbytes,
        sessions=sessions,
        waiting=model.waiting,
        idle_s=now - model.last_used,
    )


def _session(session: ServingSession, now: float) -> responses.SessionStatus:
    return responses.SessionStatus(
        name=session.name,
        client=session.client,
        model=session.model_id,
        state=session.machine.state,
        age_s=now - session.opened,
        idle_s=now - session.last_used,
        inferences=session.inferences,
        errors=session.errors,
        task=session.task,
    )


def add_endpoints(app: FastAPI, service: Service) -> None:
    """Add the endpoints of ``service`` to the application."""
    listing: asyncio.Task[list[str]] | None = None
    one_at_a_time = asyncio.Lock()
    limit = service.options.request_timeout_s / 2  # the connection's own time-out is the full one
    has_token = service.options.token is not None
    # For OpenAPI alone: the application's guard checks the token before.
    token = HTTPBearer(description="What `AUTH_TOKEN` is on the server.", auto_error=False)
    dependencies = [Security(token)] if has_token else []
    refusals = responses.refusals(has_token)

    async def in_turn[T](make: Callable[[], T]) -> T:
        """Make a document, which takes milliseconds; yield to other tasks between two of them."""
        async with one_at_a_time:
            made = make()
            await asyncio.sleep(0)
            return made

    @app.get("/livez", summary="Liveness", tags=["health"], response_class=PlainTextResponse)
    async def livez() -> str:
        """Answer while the process does."""
        return "ok\n"

    @app.get(
        "/readyz",
        summary="Readiness",
        tags=["health"],
        response_model=responses.Readiness,
        responses={503: responses.unavailable("it loads or drains", model=responses.Unready)},
    )
    async def readyz() -> Response | responses.Readiness:
        """Say whether new sessions are welcome: the default checkpoint is warm."""
        evidence = responses.Readiness(
            ready=service.not_ready is None,
            inferences=service.metrics.inferences,
            last_cost_ms=service.metrics.last_cost_ms,
            default=service.store.default,
        )
        if service.not_ready is None:
            return evidence
        unready = responses.Unready(**evidence.model_dump(), reason=service.not_ready)
        return JSONResponse(unready.model_dump(), 503)

    @app.get(
        "/metrics",
        summary="Prometheus metrics",
        tags=["health"],
        response_class=MetricsText,
        dependencies=dependencies,
        responses=refusals,
    )
    async def metrics() -> Response:
        """Count sessions, answers and failures, and their times, for Prometheus."""
        return MetricsText(await in_turn(service.metrics.text))

    @app.get(
        "/api/v1/status",
        summary="Server, models and sessions",
        tags=["server"],
        dependencies=dependencies,
        responses=refusals,
    )
    async def status() -> responses.Status:
        """Describe the server, its models and sessions, the last answers, and what failed."""
        return await in_turn(lambda: describe(service))

    late = f"no list of checkpoints within {limit:g} s"

    @app.get(
        "/api/v1/models",
        summary="Checkpoints that it serves",
        tags=["server"],
        response_model=responses.Checkpoints,
        dependencies=dependencies,
        responses={**refusals, 503: responses.unavailable(late)},
    )
    async def models() -> Response | responses.Checkpoints:
        """List the checkpoints of the run, each of which can be asked for by a session."""
        nonlocal listing
        # Shared by concurrent requests: a bucket takes a while, and the threads are few.
        if listing is None or listing.done():
            listing = asyncio.create_task(asyncio.to_thread(service.store.source.ids))
        done, _ = await asyncio.wait({listing}, timeout=limit)
        if not done:
            return PlainTextResponse(f"{late}\n", 503)
        try:
            return responses.Checkpoints(models=listing.result())
        except (OSError, FoundationError):
            logger.exception("cannot list the checkpoints")
            return responses.Checkpoints(models=[])
