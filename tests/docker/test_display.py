"""A rollout's window on the host's display, from a container; and rollouts without a display."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from positronic.vendors.lerobot import codecs
from tests.docker.caller import Caller
from tests.positronic.vendors.lerobot.small_policy import make_run

ROLL_OUT = (
    "docker compose run --rm %s positronic-inference sim --driver.show_gui=True"
    " --driver.simulation_time=%d --driver.num_iterations=1"
    " --policy=.act_absolute"
    " --policy.checkpoints_dir=~/checkpoints/run"
)


@pytest.fixture(scope="module")
def policy(caller: Caller, images: None) -> None:
    """A policy in ~/checkpoints/run that costs no time."""
    make_run(caller.home / "checkpoints/run", codecs.eepose_state.instantiate(), steps=(2,))
    caller.own(caller.home / "checkpoints")


@contextmanager
def screen(caller: Caller, options: str = "") -> Iterator[str]:
    """The caller's display, which nobody sees."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    # Without -noreset it starts anew when its last client leaves, and refuses the next meanwhile.
    command = caller.words(f"exec Xvfb -noreset -displayfd 1 -screen 0 800x600x24 {options}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            number = server.stdout.readline().decode().strip()
            if not number:
                pytest.skip("Xvfb did not start")
            yield f":{number}"
        finally:
            server.terminate()


def colours(display: str) -> int:
    """How many colours are on the screen; an empty one has two."""
    with av.open(display, format="x11grab", options={"video_size": "800x600"}) as grabbed:
        frame: Any = next(grabbed.decode(video=0))
        pixels = frame.to_ndarray(format="rgb24").reshape(-1, 3).astype(int)
        return len(set((pixels @ [65536, 256, 1]).tolist()))


def wildcard_cookie(path: Path) -> Path:
    """Write a file as ``xauth`` does, with a cookie for every display."""
    fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", b"sixteen bytes...")
    entry = b"\xff\xff" + b"".join(len(each).to_bytes(2, "big") + each for each in fields)
    path.write_bytes(entry)
    return path


def roll_out_in_sight(caller: Caller, display: str, log: Path, options: str = "") -> None:
    """Roll out with a window, and look at the screen meanwhile."""
    assert colours(display) < 10
    seen = 0
    with caller.start(ROLL_OUT % (options, 20), log, DISPLAY=display) as process:
        while process.poll() is None:
            seen = max(seen, colours(display))
            time.sleep(0.1)
    assert process.returncode == 0, log.read_text()
    assert "no camera window" not in log.read_text()
    assert seen > 500


def test_a_window_opens(caller: Caller, policy: None, tmp_path: Path) -> None:
    with screen(caller) as display:
        roll_out_in_sight(caller, display, tmp_path / "log")


def test_a_window_opens_where_a_cookie_is_wanted(
    caller: Caller, policy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with KDE, or `startx`; here the display has no socket but the one in the file system."""
    cookie = wildcard_cookie(caller.home / "cookie")
    caller.own(cookie)
    caller.variables["XAUTHORITY"] = str(cookie)
    monkeypatch.setenv("XAUTHORITY", str(cookie))
    with screen(caller, f"-auth {cookie} -nolisten local") as display:
        documented = "-v $XAUTHORITY:$XAUTHORITY:ro -v /tmp/.X11-unix:/tmp/.X11-unix"
        roll_out_in_sight(caller, display, tmp_path / "log", documented)


def test_without_a_display_rollouts_go_on(caller: Caller, policy: None) -> None:
    # Nobody answers there.
    printed = caller.ok(ROLL_OUT % ("", 1), DISPLAY=":987")
    assert "no camera window: the window did not open" in printed
    assert "success rate" in printed
