import http.client
from contextlib import closing
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest

from positronic.offboard.serving import pages
from tests.positronic.offboard.running import get, serving
from tests.positronic.offboard.small_models import Source

TOKEN = "correct-horse"
FILES = ("/docs/docs.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")


class Links(HTMLParser):
    """What a page loads, and what stands in it and should not."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.within: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [value for key in ("src", "href") if (value := named.get(key))]
        if tag == "style" or (tag == "script" and "src" not in named):
            self.within.append(tag)
        self.within += [key for key in named if key == "style" or key.startswith("on")]


def test_the_page_loads_nothing_but_what_this_server_has() -> None:
    with serving(Source(["010000"])) as port:
        status, body = get(port, "/docs")
        assert status == 200
        links = Links(body.decode())
        loaded = [address for address in links.addresses if not address.startswith("data:")]
        assert links.within == []
        assert not any(urlsplit(address).netloc for address in loaded)
        assert tuple(sorted(urljoin("/docs", address) for address in loaded)) == FILES
        for path in FILES:
            status, body = get(port, path)
            assert status == 200
            assert len(body) > 100


def test_a_browser_is_told_to_load_nothing_else() -> None:
    with serving(Source(["010000"])) as port:
        for path in ("/docs", *FILES):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with closing(connection):
                connection.request("GET", path)
                headers = connection.getresponse().headers
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'self'; img-src data:; base-uri 'none';")
            assert "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"


def test_swagger_ui_lies_where_the_installed_package_has_it() -> None:
    """Its layout is documented nowhere; a version with another one fails here."""
    paths = {route.path for route in pages.docs_routes(dict)}
    assert paths == {"/docs", "/openapi.json", *FILES}


def test_they_need_the_token() -> None:
    with serving(Source(["010000"]), token=TOKEN) as port:
        for path in ("/docs", "/openapi.json", *FILES):
            assert get(port, path) == (401, b"a token is needed\n")
            assert get(port, path, {"Authorization": f"Bearer {TOKEN}"})[0] == 200


@pytest.mark.parametrize("token", [None, TOKEN])
def test_they_can_be_left_out(token: str | None) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with serving(Source(["010000"]), token=token, docs=False) as port:
        for path in ("/docs", "/openapi.json", "/redoc", *FILES):
            assert get(port, path, headers) == (404, b"Not Found")
        assert get(port, "/api/v1/models", headers) == (200, {"models": ["010000"]})
