"""The ASGI application: sessions, what operators ask, and the page for people.

::

    WS  /api/v1/session[/{checkpoint_id}]    GET /livez /readyz /metrics
    GET /api/v1/models /api/v1/status        GET /
"""

import logging
from collections.abc import Collection

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from positronic.offboard.serving import health, status_page
from positronic.offboard.serving.answer import Reason
from positronic.offboard.serving.connection import WebSocketChannel
from positronic.offboard.serving.guard import Guard
from positronic.offboard.serving.logs import log
from positronic.offboard.serving.service import Service

logger = logging.getLogger(__name__)


def make_app(service: Service) -> Starlette:
    """Put the ``service`` behind its paths and its token."""

    async def session(websocket: WebSocket) -> None:
        await websocket.accept()
        requested = websocket.path_params.get("checkpoint_id")
        await service.serve(WebSocketChannel(websocket), requested)

    page = status_page.routes()
    open_paths = [*health.OPEN_PATHS, *(route.path for route in page)]
    return Starlette(
        routes=[
            *health.routes(service),
            *page,
            WebSocketRoute("/api/v1/session", session),
            WebSocketRoute("/api/v1/session/{checkpoint_id:path}", session),
        ],
        middleware=[guarded(service, open_paths)],
    )


def guarded(service: Service, open_paths: Collection[str], scheme: str = "Bearer") -> Middleware:
    """Ask for the token of ``service`` on all other paths, and count who does not know it."""

    def refused(client: str) -> None:
        service.metrics.failed(Reason.UNAUTHORISED)
        log(logger, "unauthorised", level=logging.WARNING, client=client)

    return Middleware(
        Guard,
        token=service.options.token,
        open_paths=open_paths,
        on_refused=refused,
        scheme=scheme,
        host=service.host,
    )
