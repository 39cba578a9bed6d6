"""Who may talk to the server: this machine alone, or those who know the token."""

import hmac
import ipaddress
from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from positronic.errors import UsageError

TOKEN_VARIABLE, INSECURE_VARIABLE = "AUTH_TOKEN", "POSITRONIC_INSECURE"
_MAKE_ONE = (
    "make one with"
    ' `export AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_urlsafe())")`'
)


def read_token(environ: Mapping[str, str]) -> str | None:
    """Return the token of the environment; None where there is none.

    Raises:
        UsageError: It is empty, or could not be sent in a header.
    """
    token = environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if not token.strip():
        raise UsageError(
            f"{TOKEN_VARIABLE} is set but empty, which would let everybody in; {_MAKE_ONE}, or"
            " unset it"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{TOKEN_VARIABLE} holds a space, a line break or a special character, which no"
            f" header can carry; {_MAKE_ONE}"
        )
    return token


def is_insecure(environ: Mapping[str, str]) -> bool:
    """Whether the environment says ``--insecure``, as a container's does whose ports are mapped.

    Raises:
        UsageError: It says something else.
    """
    value = environ.get(INSECURE_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{INSECURE_VARIABLE}={value} is neither 1, which lets others in, nor 0")
    return value == "1"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach ``address``, which is one of a socket and no name."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def require_token(address: str, host: str, token: str | None, insecure: bool) -> None:
    """Refuse to let everybody in by mistake.

    Args:
        address: Where the server listens, as a socket has it.
        host: The same as the operator wrote it.
        token: What clients have to know.
        insecure: The operator wants it so.

    Raises:
        UsageError: Other machines could connect, and need not know anything.
    """
    if token is None and not insecure and not is_loopback(address):
        raise UsageError(
            f"--host={host} lets other machines connect without a token; {_MAKE_ONE} and give it"
            " to the clients, or leave --host away, or say --insecure if the network keeps others"
            " out"
        )


def authorised(header: str | None, token: str, scheme: str) -> bool:
    """Whether an ``Authorization`` header holds the token; takes the same time if it does not."""
    given, _, secret = (header or "").partition(" ")
    same = hmac.compare_digest(secret.strip().encode(), token.encode())
    return same and given.lower() == scheme.lower()


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
