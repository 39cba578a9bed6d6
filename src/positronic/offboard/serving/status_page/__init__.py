"""Status page at ``/``: plain files that ask ``/api/v1/status``, and nothing elsewhere."""

from importlib.resources import files

from starlette.routing import Route

from positronic.offboard.serving.page_files import file_route

_NAMES = ("status.css", "status.js", "chart.js")


def routes() -> list[Route]:
    """Serve the page at ``/`` and what it consists of under ``/status_page/``; none is secret."""
    folder = files(__name__)
    return [
        file_route("/", folder / "index.html"),
        *(file_route(f"/status_page/{name}", folder / name) for name in _NAMES),
    ]
