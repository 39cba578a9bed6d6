import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from positronic.offboard.serving.process import bind
from positronic.offboard.serving.service import Service
from tests.chromium import Page, needs_chromium
from tests.positronic.offboard.running import ask, get, raw, ready, receive, serving
from tests.positronic.offboard.small_models import NBYTES, Source

pytestmark = needs_chromium

PARTS = ("pre", "queue", "infer", "post")


class StatusPage(Page):
    """The status page in the browser."""

    def open(self, port: int) -> None:
        self.get(f"http://127.0.0.1:{port}/")

    def text(self, selector: str) -> str:
        found: str = self.browser.execute_script(
            "return document.querySelector(arguments[0]).innerText", selector
        )
        return found.replace("\u00a0", " ").replace("\u202f", " ").strip()

    def shows(self, selector: str) -> bool:
        return bool(
            self.browser.execute_script(
                "return document.querySelector(arguments[0]).checkVisibility()", selector
            )
        )

    def rows(self, table: str) -> list[dict[str, str]]:
        """The table as a reader has it: by the words over its columns."""
        cells: list[list[str]] = self.browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])]"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))",
            f"#{table} tr",
        )
        names, *rows = [[cell.replace("\u00a0", " ") for cell in row] for row in cells]
        return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.fixture
def page(browser: Any) -> StatusPage:
    return StatusPage(browser)


def milliseconds(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


@pytest.fixture(scope="module")
def busy() -> Iterator[int]:
    """A server with two models, three sessions, answers in batches, and failures of two kinds."""
    source = Source(["010000", "020000"], backend="torch", precision="float32", device="cpu")
    with (
        serving(source, default="020000") as port,
        raw(port) as one,
        raw(port) as two,
        raw(port, "/api/v1/session/010000") as third,
    ):
        for session in (one, two, third):
            ready(session)
        for i in range(30):
            ask(one, grip=i / 100, task="stack <b>the</b> cubes", sleep=i % 3 / 100)
            ask(third, grip=0.5)
        for _ in range(3):
            assert "error" in ask(two, task="no grip")
        assert "error" in ask(two, grip=1.0, explode=True)
        yield port


def test_the_numbers_are_those_of_the_server(busy: int, page: StatusPage) -> None:
    status = get(busy, "/api/v1/status")[1]
    page.open(busy)
    page.until(lambda: page.text("#state") == "ready")
    server = status["server"]
    assert page.text("#address") == f"127.0.0.1:{busy}"
    assert page.text("#about").startswith(f"version {server['version']}, started ")
    assert page.text("#session-count") == f"3 of {server['max_sessions']}"
    assert page.text("#inferences").split()[0] == "60" == str(server["inferences"])
    assert page.text("#last-cost") == f"{milliseconds(server['last_cost_ms'])} ms"
    assert page.text("#waiting") == "0 requests"
    assert page.text("#memory") == f"{2 * NBYTES} B of 1.0 kB"

    models = page.rows("models")
    assert [model["Checkpoint"] for model in models] == ["020000 (default)", "010000"]
    for shown, model in zip(models, status["models"], strict=True):
        assert shown["State"] == "ready" == model["state"]
        assert shown["Sessions"] == str(model["sessions"])
        assert (shown["Policy"], shown["Memory"]) == ("counting", f"{NBYTES} B")
        described = [shown[name] for name in ("Backend", "Precision", "Device")]
        assert described == ["torch", "float32", "cpu"]
    for shown, session in zip(page.rows("sessions"), status["sessions"], strict=True):
        for name, key in (("Session", "name"), ("Client", "client"), ("Checkpoint", "model")):
            assert shown[name] == session[key]
        assert shown["Inferences"] == str(session["inferences"])
        assert shown["Errors"] == str(session["errors"])
        # What a client says is text, not HTML.
        assert shown["Task"] == session["task"]
    assert page.rows("sessions")[0]["Task"] == "stack <b>the</b> cubes"

    failures = {row["Reason"]: int(row["Count"]) for row in page.rows("failures")}
    assert failures == {"invalid": 3, "internal": 1} == status["failures"]
    assert all(row["Which means"] for row in page.rows("failures"))


def test_percentiles_and_bars_are_those_of_the_requests(busy: int, page: StatusPage) -> None:
    page.open(busy)
    page.until(lambda: page.shows("#percentiles"))
    latency = get(busy, "/api/v1/status")[1]["latency"]
    table = {name: [row[i] for row in latency["rows"]] for i, name in enumerate(latency["columns"])}
    parts = {part: np.array(table[f"{part}_ms"]) for part in PARTS}
    total = sum(parts.values())
    assert len(page.rows("percentiles")) == 5
    for shown in page.rows("percentiles"):
        values = parts.get(shown["Part"], total)
        for q in (50, 95, 99):
            assert shown[f"p{q}"] == milliseconds(float(np.percentile(values, q)))

    bars, lines, top = page.browser.execute_script(
        """
        const numbers = (e, ...names) => names.map((name) => +e.getAttribute(name));
        const all = (selector) => [...document.querySelectorAll(`#chart ${selector}`)];
        return [
          arguments[0].map((part) => all(`rect.${part}`)
            .map((e) => numbers(e, "width", "height", "y"))),
          all("line").map((e) => numbers(e, "x1", "x2", "y1")),
          +all("text")[all("line").length - 1].textContent,
        ];
        """,
        list(PARTS),
    )
    # Slices of equal time, of a tenth of a second at least; those without a request have no bar.
    count = round((lines[0][1] - lines[0][0]) / (bars[0][0][0] + 1))
    at = np.array(table["at"])
    width = max((at[-1] - at[0]) / count, 0.1)
    index = np.minimum(((at - at[0]) / width).astype(int), count - 1)
    assert len(np.unique(index)) > 2
    scale = (lines[0][2] - lines[-1][2]) / top
    floor = [lines[0][2]] * len(np.unique(index))
    for part, shown in zip(PARTS, bars, strict=True):
        # Each stands on the one before it.
        np.testing.assert_allclose([height + y for _, height, y in shown], floor)
        floor = [y for _, _, y in shown]
        means = [parts[part][index == i].mean() for i in np.unique(index)]
        np.testing.assert_allclose([height / scale for _, height, _ in shown], means, atol=1e-6)


def test_the_chart_is_read_with_the_keyboard(busy: int, page: StatusPage) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page.open(busy)
    page.until(lambda: page.shows("#chart"))
    rows = get(busy, "/api/v1/status")[1]["latency"]["rows"]
    chart = page.browser.find_element(By.ID, "chart")
    chart.send_keys(Keys.HOME)
    said = page.text("#readout")
    counted = 0
    while True:
        counted += int(page.text("#readout").split(" request")[0].split()[-1])
        before = page.text("#readout")
        chart.send_keys(Keys.ARROW_RIGHT)
        if page.text("#readout") == before:
            break
    assert counted == len(rows) == 60
    assert all(f"{part} " in said for part in (*PARTS, "slowest", "batches of"))


def test_a_server_without_work_says_so_in_words(page: StatusPage) -> None:
    source = Source(["010000"])
    source.hold("010000")
    with serving(source, wait=False) as port:
        page.open(port)
        page.until(lambda: page.text("#state") == "getting ready")
        assert page.text("#last-cost") == "–"
        assert page.text("#latency-empty") == "No inference has been answered yet."
        assert f"ws://127.0.0.1:{port}/api/v1/session" in page.text("#sessions-empty")
        assert page.text("#failures-empty") == "Nothing has failed."
        assert not any(page.shows(f"#{name}") for name in ("latency", "sessions", "failures"))
        (model,) = page.rows("models")
        assert (model["State"], model["Sessions"], model["Idle"]) == ("loading", "0", "")
        assert page.text("#session-count").startswith("0 of ")
        with raw(port) as waiting:
            assert receive(waiting)["status"] == "loading"
            page.until(lambda: page.rows("models")[0]["Sessions"] == "1")
            assert page.text("#session-count").startswith("1 of ")
            assert page.rows("sessions")[0]["Checkpoint"] == "010000"
        assert page.errors() == []
    with serving(Source(["010000"])) as port:
        page.open(port)
        page.until(lambda: page.text("#state") == "ready")


@pytest.mark.parametrize("docs", [True, False])
def test_it_leads_to_the_description_of_the_endpoints(page: StatusPage, docs: bool) -> None:
    with serving(Source(["010000"]), docs=docs) as port:
        page.open(port)
        page.until(lambda: page.text("#state") == "ready")
        assert page.shows("#docs") is docs
        if docs:
            page.browser.execute_script("document.getElementById('docs').click()")
            page.until(lambda: page.browser.current_url == f"http://127.0.0.1:{port}/docs")


def test_a_token_is_asked_for_kept_and_forgotten(page: StatusPage) -> None:
    from selenium.webdriver.common.by import By

    def submit(token: str) -> None:
        page.browser.find_element(By.ID, "token").send_keys(token)
        page.browser.find_element(By.CSS_SELECTOR, "#token-form button").click()

    with serving(Source(["010000"]), token="the-secret") as port:
        page.open(port)
        page.until(lambda: page.shows("#token-form"))
        assert not page.shows("#content")
        assert page.browser.switch_to.active_element.get_attribute("id") == "token"
        submit("wrong")
        page.until(lambda: page.text("#token-error") == "The server does not take this token.")
        submit("the-secret")
        page.until(lambda: page.text("#state") == "ready")
        assert not page.shows("#token-form")
        assert page.shows("#content")

        page.browser.refresh()
        page.until(lambda: page.text("#state") == "ready")
        page.browser.find_element(By.ID, "forget").click()
        page.until(lambda: page.shows("#token-form"))
        assert page.browser.execute_script("return sessionStorage.length") == 0
        # The browser itself notes each answer 401, and nothing else.
        assert all("401 (Unauthorized)" in message for message in page.errors())


def test_a_server_that_goes_and_comes_back_is_followed(page: StatusPage) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(Source(["010000"])))
        page.open(port)
        page.until(lambda: page.text("#state") == "ready")
        started = page.text("#about")
    page.until(lambda: page.text("#state") == "not reachable")
    assert page.text("#banner").startswith("No answer from the server since ")
    assert page.text("#about") == started
    with serving(Source(["010000"]), port=port):
        page.until(lambda: page.text("#state") == "ready")
        assert not page.shows("#banner")


def test_a_draining_server_says_that_it_takes_no_more(page: StatusPage) -> None:
    found: list[Service] = []
    here = threading.Event()

    def capture(service: Service) -> Any:
        found.append(service)
        here.set()
        return None

    extra: socket.socket = bind("127.0.0.1", 0)
    with serving(Source(["010000"]), extras=[(extra, capture)]) as port:
        assert here.wait(10)
        page.open(port)
        page.until(lambda: page.text("#state") == "ready")
        found[0].draining = True
        page.until(lambda: page.text("#state") == "draining")
        assert "takes no more" in page.text("#banner")


def test_it_is_readable_on_a_phone(busy: int, page: StatusPage) -> None:
    metrics = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.open(busy)
        page.until(lambda: page.shows("#models"))
        found = page.browser.execute_script(
            """
            const beyond = [...document.querySelectorAll("main *")]
              .filter((e) => e.checkVisibility() && !e.closest("thead"))
              .filter((e) => e.getBoundingClientRect().right > innerWidth)
              .map((e) => e.outerHTML);
            return [document.documentElement.scrollWidth, innerWidth, beyond];
            """
        )
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert found == [375, 375, []]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(
    busy: int, page: StatusPage, scheme: str
) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.open(busy)
    page.until(lambda: page.shows("#models"))
    # Contrast as WCAG 2.2 has it, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
    found = page.browser.execute_script(
        """
        const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
          .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (e) => {
          const colour = parse(getComputedStyle(e).backgroundColor);
          return colour[3] === 0 && e.parentElement ? behind(e.parentElement) : colour;
        };
        return [...document.querySelectorAll("body *")]
          .filter((e) => e.checkVisibility() && [...e.childNodes].some(
            (n) => n.nodeType === 3 && n.textContent.trim()))
          .map((e) => {
            const style = getComputedStyle(e);
            const ink = parse(e.closest("svg") ? style.fill : style.color);
            const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), e.outerHTML];
          });
        """
    )
    assert len(found) > 100
    assert [(ratio, what) for ratio, what in found if ratio < 4.5] == []
    brightness = page.browser.execute_script(
        "return +getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"
    )
    assert brightness < 60 if scheme == "dark" else brightness > 180


def test_it_asks_this_server_alone_and_complains_of_nothing(busy: int, page: StatusPage) -> None:
    page.open(busy)
    page.until(lambda: page.text("#state") == "ready")
    addresses: list[str] = page.browser.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    here = f"http://127.0.0.1:{busy}"
    assert {a.removeprefix(here) for a in addresses} == {
        *("/status_page/status.css", "/status_page/status.js", "/status_page/chart.js"),
        "/api/v1/status",
    }
    assert page.errors() == []
    unnamed = page.browser.execute_script(
        """
        return [...document.querySelectorAll("input:not([hidden]), svg, section, button")]
          .filter((e) => !(e.labels?.length || e.ariaLabel || e.getAttribute("aria-labelledby")
            || e.textContent.trim()))
          .map((e) => e.outerHTML);
        """
    )
    assert unnamed == []
