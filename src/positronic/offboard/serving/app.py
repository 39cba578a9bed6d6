"""ASGI application: routes of the sessions, the endpoints for operators, and the status page.

::

    WS  /api/v1/session[/{checkpoint_id}]    GET /livez /readyz /metrics
    GET /api/v1/models /api/v1/status        GET / /docs /openapi.json

FastAPI serves the endpoints and describes them. WebSocket sessions do not pass through FastAPI.
"""

import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Collection
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from foundation.text import printable
from positronic.offboard.serving import health, pages, responses
from positronic.offboard.serving.channel import Reason
from positronic.offboard.serving.connection import WebSocketChannel
from positronic.offboard.serving.logs import log
from positronic.offboard.serving.security import authorised, is_loopback
from positronic.offboard.serving.service import Service

logger = logging.getLogger(__name__)

# Host header: a name or an address, with or without a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://(.*)")

DESCRIPTION = """What operators ask an inference server over HTTP. Robots open a WebSocket at
`/api/v1/session` or `/api/v1/session/{checkpoint_id}`, which OpenAPI cannot describe.
"""
# Otherwise an installed OpenTelemetry SDK would get a span of every request.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


class Guard:
    """ASGI middleware: requires the token, and refuses foreign Host headers and origins."""

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        open_paths: Collection[str],
        on_refused: Callable[[str], None],
        scheme: str = "Bearer",
        host: str = "",
    ) -> None:
        """Guard ``app``.

        Args:
            app: The application.
            token: The token that clients must send; None for none.
            open_paths: Paths that need no token, since they reveal nothing.
            on_refused: Called with the address of a refused client.
            scheme: Authentication scheme in the ``Authorization`` header.
            host: Accepted host name of the server, beside addresses and ``localhost``.
        """
        self._app, self._token, self._open_paths = app, token, frozenset(open_paths)
        self._on_refused, self._scheme = on_refused, scheme
        self._names = frozenset(name.lower() for name in ("localhost", host, socket.gethostname()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        host, port = scope.get("client") or ("unknown", 0)
        self._on_refused(f"{host}:{port}")
        # A WebSocket gets it as the response to its handshake.
        await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """Return the response that refuses a request, with the reason; None to let it through."""
        headers = Headers(scope=scope)
        host = headers.get("host")
        if host is not None and _HOST.fullmatch(host) is None:
            return PlainTextResponse(f"malformed Host header {printable(host, 80)!r}\n", 400)
        if self._token is None and host is not None and not self._is_own(host, scope):
            return PlainTextResponse(
                f"this server is not {printable(host, 80)!r}: ask for localhost, an IP address or"
                " the server's --host, or give it a token (AUTH_TOKEN)\n",
                403,
            )
        is_websocket = scope["type"] == "websocket"
        if is_websocket and _is_foreign(headers.get("origin"), host):
            return PlainTextResponse("pages of other sites may not open sessions\n", 403)
        if self._token is None or (not is_websocket and scope["path"] in self._open_paths):
            return None
        if authorised(headers.get("authorization"), self._token, self._scheme):
            return None
        return PlainTextResponse(
            "a token is needed\n",
            403 if is_websocket else 401,
            headers={"WWW-Authenticate": self._scheme},
        )

    def _is_own(self, host: str, scope: Scope) -> bool:
        """Return whether ``host`` may name this server; checked on loopback (DNS rebinding).

        The owner of a domain can let it resolve to 127.0.0.1, so that their page, opened in a
        browser on this machine, has access to this server as to its own.
        """
        address = (scope.get("server") or ("",))[0]
        if not _is_address(address) or not is_loopback(address):
            return True
        name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
        return _is_address(name.strip("[]")) or name.lower() in self._names


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_foreign(origin: str | None, host: str | None) -> bool:
    """Return whether a browser opens the WebSocket for a page of another origin.

    Browsers let any page connect to any host, this machine included. Robots send no origin.
    """
    if origin is None:
        return False
    found = _ORIGIN.fullmatch(origin)
    return found is None or host is None or found[1].lower() != host.lower()


class HeadAsGet:
    """ASGI middleware: answers HEAD as GET; the HTTP protocol omits the body.

    Starlette's routes do so by themselves; FastAPI's answer GET only.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def make_app(service: Service) -> Starlette:
    """Return the application with the routes of ``service``, behind its token."""

    async def session(websocket: WebSocket) -> None:
        await websocket.accept()
        requested = websocket.path_params.get("checkpoint_id")
        await service.serve(WebSocketChannel(websocket), requested)

    page = pages.status_routes()
    open_paths = [*health.OPEN_PATHS, *(route.path for route in page)]
    http = FastAPI(
        title="Inference server",
        description=DESCRIPTION,
        version=version("positronic-lightning"),
        openapi_url=None,
        responses=responses.errors(service.options.token is not None),
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={HTTPException: _say},
        middleware=[Middleware(HeadAsGet)],
        routes=[*page],
        telemetry=NO_TELEMETRY,
    )
    health.add_endpoints(http, service)
    if service.options.docs:
        http.routes.extend(pages.docs_routes(http.openapi))
    return Starlette(
        routes=[
            WebSocketRoute("/api/v1/session", session),
            WebSocketRoute("/api/v1/session/{checkpoint_id:path}", session),
            Mount("/", http),
        ],
        middleware=[guarded(service, open_paths)],
    )


async def _say(request: Request, error: Exception) -> PlainTextResponse:
    """Answer an HTTP error as plain text, as the rest of this server does."""
    assert isinstance(error, HTTPException)
    headers = {**(error.headers or {})}
    if "Allow" in headers:
        headers["Allow"] = "GET, HEAD"
    return PlainTextResponse(error.detail, error.status_code, headers=headers)


def guarded(service: Service, open_paths: Collection[str], scheme: str = "Bearer") -> Middleware:
    """Return a `Guard` with the token of ``service``; refused requests are counted and logged."""

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
