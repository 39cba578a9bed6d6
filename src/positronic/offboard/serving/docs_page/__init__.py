"""Page at ``/docs``: Swagger UI on ``/openapi.json``, from files of an installed package.

FastAPI's own page loads Swagger UI from elsewhere and starts it by a script within the page, which
a strict Content-Security-Policy forbids.
"""

import importlib.util
from importlib.resources import files
from pathlib import Path

from starlette.routing import Route

from positronic.offboard.serving.page_files import file_route


def routes() -> list[Route]:
    """Serve the page at ``/docs`` and what it consists of under ``/docs/``."""
    folder, swagger_ui = files(__name__), _swagger_ui()
    return [
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
