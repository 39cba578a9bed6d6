"""Page at ``/docs``: Swagger UI on ``/openapi.json``, from files of an installed package.

FastAPI's own page loads Swagger UI from elsewhere and starts it by a script within the page, which
a strict Content-Security-Policy forbids.
"""

import importlib.util
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from positronic.offboard.serving.page_files import file_route


def routes(openapi: Callable[[], dict[str, Any]]) -> list[Route]:
    """Serve the page at ``/docs``, what it consists of under ``/docs/``, and ``/openapi.json``.

    Args:
        openapi: Returns the OpenAPI document.
    """
    folder, swagger_ui = files(__name__), _swagger_ui()

    # Starlette calls it in a thread. FastAPI's own route makes the document in the event loop, and
    # sessions would wait for it, the first time for some 80 ms.
    def document(request: Request) -> Response:
        return JSONResponse(openapi())

    return [
        Route("/openapi.json", document),
        file_route("/docs", folder / "index.html"),
        file_route("/docs/docs.js", folder / "docs.js"),
        file_route("/docs/swagger-ui.css", swagger_ui / "swagger-ui.css"),
        file_route("/docs/swagger-ui-bundle.js", swagger_ui / "swagger-ui-bundle.js"),
    ]


def _swagger_ui() -> Path:
    # Not imported: its code is another FastAPI application.
    found = importlib.util.find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'fastapi_offline'", name="fastapi_offline")
    return Path(found.origin).parent / "static"
