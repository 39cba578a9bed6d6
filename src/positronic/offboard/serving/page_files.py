"""Files of the pages for people, as routes: read once, and of use on this server alone."""

from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    # A new version of the server comes with a new page.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def file_route(path: str, file: Traversable) -> Route:
    """Serve ``file`` at ``path``."""
    content = file.read_bytes()
    media_type = _TYPES[file.name.rpartition(".")[2]]

    def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, answer)
