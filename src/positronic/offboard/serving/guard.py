"""Turns away who does not know the token, before anything else looks at a request."""

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from positronic.offboard.serving.security import authorised


class Guard:
    """ASGI middleware: lets through who knows the token, and no page of another site."""

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        open_paths: Collection[str],
        on_refused: Callable[[str], None],
        scheme: str = "Bearer",
    ) -> None:
        """Guard ``app``.

        Args:
            app: The application.
            token: What clients have to know; None lets everybody in.
            open_paths: Need no token, since they tell nothing.
            on_refused: Called with the address of a client that was turned away.
            scheme: What the token follows in the ``Authorization`` header.
        """
        self._app, self._token, self._open_paths = app, token, frozenset(open_paths)
        self._on_refused, self._scheme = on_refused, scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] not in ("http", "websocket") or self._allows(scope):
            await self._app(scope, receive, send)
            return
        host, port = scope.get("client") or ("unknown", 0)
        self._on_refused(f"{host}:{port}")
        if scope["type"] == "websocket":
            # Before it is accepted, which the client sees as HTTP 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = PlainTextResponse(
            "a token is needed\n", 401, headers={"WWW-Authenticate": self._scheme}
        )
        await refusal(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if scope["type"] == "websocket" and _is_foreign(headers):
            return False
        if self._token is None or (scope["type"] == "http" and scope["path"] in self._open_paths):
            return True
        return authorised(headers.get("authorization"), self._token, self._scheme)


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser opens the WebSocket for a page that this server did not serve.

    Browsers let any page connect to any host, this machine included. Robots send no origin.
    """
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")
