"""Status page at ``/``: plain files that ask ``/api/v1/status``, and nothing elsewhere."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Only the server serves it.
__all__: list[str] = []

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_NAMES = ("index.html", "status.css", "status.js", "chart.js")
_HEADERS = {
    # A new version of the server comes with a new page.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def routes() -> list[Route]:
    """Serve the page at ``/`` and what it consists of under ``/status_page/``; none is secret."""
    folder = files(__name__)
    return [
        _route(
            "/" if name == "index.html" else f"/status_page/{name}", (folder / name).read_bytes()
        )
        for name in _NAMES
    ]


def _route(path: str, content: bytes) -> Route:
    media_type = _TYPES[path.rpartition(".")[2] if path != "/" else "html"]

    def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(path, answer)
