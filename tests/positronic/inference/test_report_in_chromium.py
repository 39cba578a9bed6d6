from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.support.wait import WebDriverWait

from positronic.inference.comparison.contest import Pairs, all_contests
from positronic.inference.comparison.entrants import Entrant
from positronic.inference.comparison.page import render_page
from positronic.inference.report import render_report
from positronic.inference.video import encode_mp4
from tests.chromium import needs_chromium
from tests.positronic.inference.sample import FPS, sample_frames, sample_replay, sample_run

STEPS = 60

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of two rollouts, one of them a failure, opened from disk."""
    run = sample_run(6, failures=(4,))
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    replays = {4: sample_replay(STEPS), 0: sample_replay(STEPS)}
    path.write_text(render_report(run, replays), encoding="utf-8")
    browser.get(path.as_uri())
    return browser


def test_videos_load_at_their_size_and_speed(page: Any) -> None:
    loaded = page.execute_async_script(
        """
        const done = arguments[0];
        const videos = [...document.querySelectorAll("video")];
        Promise.all(videos.map((v) => v.readyState >= 2 ? 1 : new Promise((r) => {
          v.addEventListener("loadeddata", r); v.addEventListener("error", r); })))
          .then(() => done(videos.map((v) =>
            [v.readyState, v.duration, v.videoWidth, v.videoHeight, v.error && v.error.message])));
        """
    )
    assert len(loaded) == 2
    for state, duration, width, height, error in loaded:
        assert error is None
        assert state >= 2
        assert duration == pytest.approx((STEPS + 1) / FPS, abs=0.02)
        assert (width, height) == (644, 240)


def test_a_video_plays_and_the_charts_follow(page: Any) -> None:
    at, cursor = page.execute_async_script(
        """
        const done = arguments[0];
        const episode = document.querySelector(".episode");
        const video = episode.querySelector("video");
        video.addEventListener("timeupdate", () => {
          if (video.currentTime < 0.3) return;
          video.pause();
          requestAnimationFrame(() => {
            const chart = episode.querySelector(".chart"), d = chart.dataset;
            const x = +chart.querySelector(".cursor").getAttribute("x1");
            done([video.currentTime, (x - d.left) / d.width * d.duration]);
          });
        });
        video.play().catch((e) => done([String(e), 0]));
        """
    )
    assert at > 0.3
    assert cursor == pytest.approx(at, abs=0.15)


def test_a_click_on_a_chart_seeks_the_video(page: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    chart = page.find_elements(By.CSS_SELECTOR, ".episode .chart")[3]
    page.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", chart
    )
    ActionChains(page).move_to_element(chart).click().perform()
    at = page.execute_script("return document.querySelector('.episode video').currentTime")
    # The middle of the picture: 44 of 360 units on the left are the axis, 10 on the right margin.
    assert at == pytest.approx((180 - 44) / 306 * STEPS / FPS, abs=0.05)


def test_nothing_scrolls_sideways_on_a_phone(page: Any) -> None:
    metrics = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        widths = page.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        video = page.execute_script(
            "return document.querySelector('video').getBoundingClientRect().width"
        )
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths == [375, 375]
    assert 280 < video < 375


@pytest.mark.parametrize("width", [600, 1000, 1300])
def test_no_figure_stands_alone_in_its_row(page: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        found = page.execute_script(
            """
            const tiles = document.querySelector(".tiles"), one = tiles.firstElementChild;
            const rows = [];
            for (const count of [3, 4, 5, 6]) {
              while (tiles.children.length > count) tiles.lastElementChild.remove();
              while (tiles.children.length < count) tiles.append(one.cloneNode(true));
              const tops = [...tiles.children].map((e) => e.getBoundingClientRect().top);
              rows.push(tops.filter((top) => top === tops.at(-1)).length);
            }
            while (tiles.children.length > 4) tiles.lastElementChild.remove();
            const { scrollWidth, clientWidth } = document.documentElement;
            return [rows, scrollWidth - clientWidth];
            """
        )
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert min(found[0]) > 1
    assert found[1] == 0


def test_the_command_is_copied_or_at_least_selected(page: Any) -> None:
    from selenium.webdriver.common.by import By

    command = "positronic-inference sim --policy=.remote --driver.num_iterations=50"
    button = page.find_element(By.CSS_SELECTOR, ".copy")
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.execute_cdp_cmd("Browser.grantPermissions", grant)
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", button)
    button.click()
    WebDriverWait(page, 20, 0.05).until(lambda _: button.text == "Copied")
    copied = page.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == command

    page.execute_script("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    button.click()
    WebDriverWait(page, 20, 0.05).until(lambda _: button.text == "Selected")
    assert page.execute_script("return String(getSelection())") == command
    page.execute_cdp_cmd("Browser.resetPermissions", {})


def test_dark_is_dark_and_light_is_light(page: Any) -> None:
    def brightness(scheme: str) -> list[float]:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        found: list[float] = page.execute_script(
            """
            const mean = (c) => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3;
            const style = getComputedStyle(document.body);
            return [mean(style.backgroundColor), mean(style.color)];
            """
        )
        return found

    background, ink = brightness("dark")
    assert background < 60 < 180 < ink
    background, ink = brightness("light")
    assert ink < 60 < 180 < background


def test_the_page_asks_for_nothing_and_complains_of_nothing(page: Any) -> None:
    assert page.get_log("browser") == []
    addresses = page.execute_script(
        "return performance.getEntriesByType('resource').map(e=>e.name)"
    )
    assert [a for a in addresses if not a.startswith("data:")] == []


@pytest.fixture(scope="module")
def comparison(page: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A comparison of three policies, in the same browser once the report is done with."""
    sides = [
        Entrant.of(name, sample_run(40, failures=failures).to_json(), f"{name}/report.html")
        for name, failures in (("5000", (1, 2, 3, 4, 5, 6, 8, 9)), ("10000", (1,)), ("other", (4,)))
    ]
    origin = {
        "started": "2026-11-20T12:00:00+00:00",
        "command": ("positronic-inference", "compare"),
    }
    path: Path = tmp_path_factory.mktemp("comparison") / "comparison.html"
    path.write_text(render_page(sides, all_contests(sides), origin), encoding="utf-8")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.get(path.as_uri())
    return page


def test_a_comparison_draws_its_intervals_to_scale(comparison: Any) -> None:
    found = comparison.execute_script(
        """
        const card = document.querySelector(".contest");
        const [scale, zero, band, rate] = [".scale", ".zero", ".scale .band", ".scale .rate"]
          .map((name) => card.querySelector(name).getBoundingClientRect());
        const at = (x) => 200 * (x - scale.left) / scale.width - 100;
        return [at(zero.left), at(band.left), at(band.right), at(rate.left + rate.width / 2)];
        """
    )
    pairs = Pairs(32, 0, 7, 1)
    expected = [0.0, *(100 * end for end in pairs.interval), 100 * (pairs.difference or 0)]
    assert found == pytest.approx(expected, abs=0.5)


def test_a_comparison_fits_a_telephone_and_complains_of_nothing(comparison: Any) -> None:
    comparison.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        widths = comparison.execute_script(
            "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
        )
    finally:
        comparison.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths[0] == widths[1] > 340
    assert comparison.get_log("browser") == []
    assert comparison.execute_script("return performance.getEntriesByType('resource').length") <= 1


def test_a_cell_of_a_comparison_leads_to_its_seed(comparison: Any) -> None:
    from selenium.webdriver.common.by import By

    comparison.find_elements(By.CSS_SELECTOR, ".entrant .cells a")[1].click()
    row = comparison.find_element(By.CSS_SELECTOR, "tr:target")
    assert row.get_attribute("id") == "seed-1001"
    assert row.text.startswith("1001")
    assert row.text.count("not solved in time") == 2


@pytest.fixture(scope="module")
def filmed(comparison: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A comparison of two policies with films of half a second and of a second, as after S3."""
    root = tmp_path_factory.mktemp("filmed")
    sides = []
    for label, steps in (("5000", 8), ("other one", 15)):
        document = sample_run(4, failures=(1,)).to_json()
        document["run"]["episodes"] = [{"video": f"s3://bucket/x/videos/{i}.mp4"} for i in range(4)]
        sides.append(Entrant.of(label, document, f"{label}/report.html"))
        (root / label / "videos").mkdir(parents=True)
        film, _ = encode_mp4(sample_frames(steps, 48, 64), FPS)
        for i in range(4):
            (root / label / "videos" / f"{i}.mp4").write_bytes(film)
    origin = {"started": "2026-11-20T12:00:00+00:00", "command": ("positronic-inference",)}
    page = root / "comparison.html"
    page.write_text(render_page(sides, all_contests(sides), origin), encoding="utf-8")
    comparison.get_log("browser")
    comparison.get(page.as_uri())
    return comparison


def test_a_cell_opens_the_films_of_its_seed_which_play_together(filmed: Any) -> None:
    from selenium.webdriver.common.by import By

    states = "return [...document.querySelectorAll('video')].map((v) => v.readyState)"
    assert filmed.execute_script(states) == [0] * 8, "nothing is loaded before it is asked for"
    filmed.find_elements(By.CSS_SELECTOR, ".entrant .cells a")[2].click()
    ended = filmed.execute_async_script(
        """
        const done = arguments[0];
        const videos = [...document.querySelectorAll("tr:target + tr details[open] video")];
        const all = videos.map((v) => new Promise((r) => v.addEventListener("ended", r)));
        Promise.all(all).then(() => done(videos.map((v) => [v.currentTime, v.videoWidth])));
        videos[1].play();
        """
    )
    assert [width for _, width in ended] == [132, 132]
    assert [at for at, _ in ended] == [pytest.approx(8 / FPS, abs=0.02), pytest.approx(1, abs=0.02)]
    assert sum(state > 0 for state in filmed.execute_script(states)) == 2
    assert filmed.get_log("browser") == []


@pytest.mark.parametrize("width", [600, 1300])
def test_films_of_a_seed_are_side_by_side(filmed: Any, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    filmed.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        (left, right), scrolled = filmed.execute_script(
            """
            document.querySelector("details:has(video)").open = true;
            const { scrollWidth, clientWidth } = document.documentElement;
            const films = [...document.querySelectorAll("details[open] video")].slice(0, 2);
            const boxes = films.map((film) => film.getBoundingClientRect().toJSON());
            return [boxes, scrollWidth > clientWidth];
            """
        )
    finally:
        filmed.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert left["top"] == right["top"]
    assert 200 < left["width"] == pytest.approx(right["width"], abs=1)
    assert left["right"] < right["left"] < right["right"] < width
    assert not scrolled
