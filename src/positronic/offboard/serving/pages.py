"""Routes of the HTML pages: the status page at ``/``, and Swagger UI at ``/docs``.

FastAPI's own page loads Swagger UI from a CDN and starts it by an inline script, which a strict
Content-Security-Policy forbids.
"""

import importlib.util
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    # A new version of the server may have a new page.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def status_routes() -> list[Route]:
    """Return routes of the status page at ``/`` and its files; none is secret."""
    folder = files(__package__) / "status_page"
    names = ("status.css", "status.js", "chart.js")
    return [
        _file_route("/", folder / "index.html"),
        *(_file_route(f"/status_page/{name}", folder / name) for name in names),
    ]


def docs_routes(openapi: Callable[[], dict[str, Any]]) -> list[Route]:
    """Return routes of the page at ``/docs``, its files under ``/docs/``, and ``/openapi.json``.

    Args:
        openapi: Returns the OpenAPI document.
    """
    folder, swagger_ui = files(__package__) / "docs_page", _swagger_ui()

    # Starlette calls it in a thread. FastAPI's own route makes the document in the event loop,
    # which delays sessions, the first time by some 80 ms.
    def document(request: Request) -> Response:
        return JSONResponse(openapi())

    return [
        Route("/openapi.json", document),
        _file_route("/docs", folder / "index.html"),
        _file_route("/docs/docs.js", folder / "docs.js"),
        _file_route("/docs/swagger-ui.css", swagger_ui / "swagger-ui.css"),
        _file_route("/docs/swagger-ui-bundle.js", swagger_ui / "swagger-ui-bundle.js"),
    ]


def _swagger_ui() -> Path:
    # Not imported: its code is another FastAPI application.
    found = importlib.util.find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'fastapi_offline'", name="fastapi_offline")
    return Path(found.origin).parent / "static"


def _file_route(path: str, file: Traversable) -> Route:
    """Serve ``file`` at ``path``."""
    content = file.read_bytes()
    media_type = _TYPES[file.name.rpartition(".")[2]]

    def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return Route(path, answer)
