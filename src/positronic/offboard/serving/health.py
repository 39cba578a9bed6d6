"""HTTP endpoints for operators: liveness, readiness, Prometheus metrics, status, models."""

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from foundation.errors import FoundationError
from positronic.offboard.models.store import ModelStatus
from positronic.offboard.serving.metrics import LATENCY_COLUMNS
from positronic.offboard.serving.service import Service, ServingSession

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/livez", "/readyz")

Document = dict[str, Any]


def describe(service: Service) -> Document:
    """Describe the server, its models and sessions, the last answers, and what failed."""
    now = time.monotonic()
    default = service.store.default
    return {
        "server": _server(service),
        "models": [_model(model, default, now) for model in service.store.status()],
        "sessions": [_session(session, now) for session in service.sessions],
        "latency": {"columns": LATENCY_COLUMNS, "rows": list(service.metrics.latency)},
        "failures": dict(service.metrics.failures),
    }


def _server(service: Service) -> Document:
    started = datetime.datetime.fromtimestamp(service.started, datetime.UTC)
    return {
        "version": version("positronic-lightning"),
        "started": started.isoformat(timespec="seconds"),
        "uptime_s": time.time() - service.started,
        "ready": service.not_ready is None,
        "draining": service.draining,
        "inferences": service.metrics.inferences,
        "last_cost_ms": service.metrics.last_cost_ms,
        "max_sessions": service.options.max_sessions,
        "memory_bytes": service.store.memory_bytes,
    }


def _model(model: ModelStatus, default: str, now: float) -> Document:
    known = {key: model.meta.get(key) for key in ("type", "backend", "precision", "device")}
    return {
        "id": model.id,
        "state": model.state,
        "default": model.id == default,
        **known,
        "nbytes": model.nbytes,
        "sessions": model.sessions,
        "waiting": model.waiting,
        "idle_s": now - model.last_used,
    }


def _session(session: ServingSession, now: float) -> Document:
    return {
        "name": session.name,
        "client": session.client,
        "model": session.model_id,
        "state": session.machine.state.value,
        "age_s": now - session.opened,
        "idle_s": now - session.last_used,
        "inferences": session.inferences,
        "errors": session.errors,
        "task": session.task,
    }


def routes(service: Service) -> list[Route]:
    """The paths beside the sessions themselves."""
    listing: asyncio.Task[list[str]] | None = None
    one_at_a_time = asyncio.Lock()

    async def in_turn[T](make: Callable[[], T]) -> T:
        """Make a document of some milliseconds; between two of them others have their turn."""
        async with one_at_a_time:
            made = make()
            await asyncio.sleep(0)
            return made

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        evidence = {
            "ready": service.not_ready is None,
            "inferences": service.metrics.inferences,
            "last_cost_ms": service.metrics.last_cost_ms,
            "default": service.store.default,
        }
        if service.not_ready is None:
            return JSONResponse(evidence)
        return JSONResponse({**evidence, "reason": service.not_ready}, 503)

    async def metrics(request: Request) -> Response:
        text = await in_turn(service.metrics.text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def status(request: Request) -> Response:
        return await in_turn(lambda: JSONResponse(describe(service)))

    async def models(request: Request) -> Response:
        nonlocal listing
        # One for all who ask meanwhile: a bucket takes a while, and the threads are few.
        if listing is None or listing.done():
            listing = asyncio.create_task(asyncio.to_thread(service.store.source.ids))
        limit = service.options.request_timeout_s / 2  # the connection itself has all of it
        done, _ = await asyncio.wait({listing}, timeout=limit)
        if not done:
            return PlainTextResponse(f"no list of checkpoints within {limit:g} s\n", 503)
        try:
            return JSONResponse({"models": listing.result()})
        except (OSError, FoundationError):
            logger.exception("cannot list the checkpoints")
            return JSONResponse({"models": []})

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/api/v1/status", status),
        Route("/api/v1/models", models),
    ]
