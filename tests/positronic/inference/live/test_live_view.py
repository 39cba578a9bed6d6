import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from positronic.inference.live.view import open_live_view, pack_frame, unpack_frame
from positronic.inference.live.window import fitting_size, mosaic
from tests.waiting import line_of, until

RED, BLUE = (230, 20, 20), (20, 20, 230)


def flat(colour: tuple[int, int, int], height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A virtual display of 800 x 600 that nobody sees."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    read, write = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as stream:
            number = line_of(stream, "the number of the display").strip()
        if not number:
            pytest.skip("Xvfb did not start")
        monkeypatch.setenv("DISPLAY", f":{number}")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        yield f":{number}"
    finally:
        process.terminate()
        process.wait(60)


def screenshot(display: str) -> NDArray[np.uint8]:
    with av.open(display, format="x11grab", options={"video_size": "800x600"}) as screen:
        frame: Any = next(screen.decode(video=0))
        picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
        return picture


def share(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> float:
    """How much of the picture has this colour."""
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 12).mean())


def wait_for_share(display: str, colour: tuple[int, int, int], least: float) -> None:
    until(lambda: share(screenshot(display), colour) >= least, f"{least} of the screen in {colour}")


def test_cameras_appear_in_a_window_and_change(display: str) -> None:
    view, why = open_live_view()
    assert view is not None, why
    try:
        view.show({"image.wrist": flat(RED), "image.exterior": flat(BLUE), "grip": 1.0}, "one")
        wait_for_share(display, RED, 0.12)
        wait_for_share(display, BLUE, 0.12)
        view.show({"image.wrist": flat(BLUE), "image.exterior": flat(BLUE)}, "two")
        wait_for_share(display, BLUE, 0.25)
        assert share(screenshot(display), RED) == 0.0
        assert view.is_open
    finally:
        view.close()
    assert not view.is_open


def test_a_window_that_is_closed_or_stuck_does_not_hold_up_anything(display: str) -> None:
    view, why = open_live_view()
    assert view is not None, why
    process = view._process
    big = {"image.wrist": flat(RED, 480, 640)}
    os.kill(process.pid, signal.SIGSTOP)
    began = time.perf_counter()
    for _ in range(100):
        view.show(big, "stuck")
    assert time.perf_counter() - began < 2.0
    process.kill()
    process.wait(60)
    deadline = time.monotonic() + 10
    while view.is_open and time.monotonic() < deadline:
        view.show(big, "gone")
        time.sleep(0.01)
    assert not view.is_open
    view.close()


def test_without_a_display_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert open_live_view() == (
        None,
        "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)",
    )
    monkeypatch.setenv("DISPLAY", ":987")
    view, why = open_live_view()
    assert view is None
    assert why.startswith("the window did not open")


def test_frames_travel_unchanged() -> None:
    images = {"wrist": flat(RED, 5, 7), "exterior": flat(BLUE, 3, 2)}
    data = pack_frame("title", images)
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    title, received = unpack_frame(data[4:])
    assert title == "title"
    assert list(received) == ["wrist", "exterior"]
    for name, image in images.items():
        np.testing.assert_array_equal(received[name], image)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (5, 3, 2)])
def test_cameras_are_laid_out_in_a_grid(count: int, columns: int, rows: int) -> None:
    picture = mosaic({f"camera{i}": flat(RED) for i in range(count)})
    assert picture.shape == (124 * rows - 4, 164 * columns - 4, 3)
    assert (picture[118, 158] == RED).all()


def test_window_fits_the_picture_and_the_screen() -> None:
    assert fitting_size(320, 240) == (640, 480)
    assert fitting_size(964, 240) == (1280, 319)
    assert fitting_size(100, 3000) == (24, 720)
