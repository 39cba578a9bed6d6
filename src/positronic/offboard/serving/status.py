"""What the server is doing, as one JSON document for the status page and for scripts."""

import datetime
import time
from importlib.metadata import version
from typing import Any

from positronic.offboard.models.store import ModelStatus
from positronic.offboard.serving.metrics import LATENCY_COLUMNS
from positronic.offboard.serving.service import Service
from positronic.offboard.serving.serving_session import ServingSession

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
