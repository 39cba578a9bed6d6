"""A real browser without a window, for pages that are made for people."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="Chromium is not installed (apt-get install chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *("disable-dev-shm-usage", "window-size=1280,1000", f"user-data-dir={profile}"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(str(shutil.which("chromedriver")), log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


class Page:
    """A page in the browser."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def get(self, address: str) -> None:
        """Open it; errors of pages before it are dropped."""
        self.browser.get_log("browser")
        self.browser.get(address)

    def until(self, condition: Callable[[], bool]) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.browser, 30, poll_frequency=0.05).until(lambda _: condition())

    def errors(self) -> list[str]:
        """What the browser's console holds against the page."""
        log: list[dict[str, str]] = self.browser.get_log("browser")
        return [entry["message"] for entry in log]
