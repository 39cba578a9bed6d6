from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.chromium import Page, needs_chromium
from tests.positronic.offboard.running import serving
from tests.positronic.offboard.small_models import Source

pytestmark = needs_chromium

TOKEN = "correct-horse"
ENDPOINTS = ["/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/models"]


class DocsPage(Page):
    """The page of the endpoints in the browser."""

    def open(self, port: int) -> None:
        self.get(f"http://127.0.0.1:{port}/docs")
        self.until(lambda: self.texts(".opblock-summary-path") == ENDPOINTS)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])]"
            ".map((e) => e.innerText.replaceAll('\\u200b', '').trim())",
            selector,
        )
        return found

    def click(self, selector: str) -> None:
        self.until(lambda: bool(self.texts(selector)))
        self.browser.execute_script("document.querySelector(arguments[0]).click()", selector)

    def loaded(self) -> list[str]:
        """The addresses of all that it has asked for."""
        found: list[str] = self.browser.execute_script(
            "return performance.getEntriesByType('resource').map((e) => e.name)"
        )
        return found


@pytest.fixture
def page(browser: Any) -> DocsPage:
    return DocsPage(browser)


@contextmanager
def sending(browser: Any, headers: dict[str, str]) -> Iterator[None]:
    """Have the browser send headers, as its extensions do."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": headers})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
        browser.execute_cdp_cmd("Network.disable", {})


def said_of(page: DocsPage, status: str) -> str:
    """What the open endpoint says of its answers with this status."""
    return " ".join(text for text in page.texts(".response") if text.startswith(status))


def test_it_shows_every_endpoint_and_asks_this_server_alone(page: DocsPage) -> None:
    with serving(Source(["010000"])) as port:
        page.open(port)
        page.click("[id$='-readyz'] .opblock-summary-control")
        page.until(lambda: "reason" in said_of(page, "503"))
        assert "reason" not in said_of(page, "200")
        assert "The request has a body." in said_of(page, "413")
        here = f"http://127.0.0.1:{port}"
        assert sorted(address.removeprefix(here) for address in page.loaded()) == [
            *("/docs/docs.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"),
            "/openapi.json",
        ]
        assert page.errors() == []


def test_an_endpoint_can_be_tried(page: DocsPage) -> None:
    with serving(Source(["010000", "020000"])) as port:
        page.open(port)
        block = "[id$='-models']"
        page.click(f"{block} .opblock-summary-control")
        page.click(f"{block} .try-out__btn")
        page.click(f"{block} .execute")
        shown = f"{block} .live-responses-table .response"
        page.until(lambda: any("020000" in text for text in page.texts(shown)))
        assert page.texts(f"{shown} .response-col_status")[0].startswith("200")
        assert f"http://127.0.0.1:{port}/api/v1/models" in page.loaded()
        assert page.errors() == []


def test_it_is_shown_to_a_browser_that_sends_the_token(page: DocsPage) -> None:
    with serving(Source(["010000"]), token=TOKEN) as port:
        page.browser.get(f"http://127.0.0.1:{port}/docs")
        assert page.texts("body") == ["a token is needed"]
        with sending(page.browser, {"Authorization": f"Bearer {TOKEN}"}):
            page.open(port)
            assert page.texts(".btn.authorize") == ["Authorize"]
            assert page.errors() == []
