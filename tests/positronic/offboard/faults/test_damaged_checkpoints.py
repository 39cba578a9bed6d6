"""A training run that is damaged, emptied and mended under the server that serves it."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from positronic.vendors.lerobot import codecs
from tests.positronic.offboard.faults.process import Command, Neighbour, command
from tests.positronic.offboard.running import after_loading, ask, get, raw, ready
from tests.positronic.vendors.lerobot.small_policy import make_run, observation

NEWEST = "020000"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stays whole."""
    steps = (10000, 11000, 12000, 20000, 30000)
    return make_run(tmp_path_factory.mktemp("good") / "stacking", codecs.eepose_state(), steps)


@pytest.fixture(scope="module")
def run(good: Path) -> Path:
    """What is served of it: at first, up to the step 20000."""
    served = good.parent / "served" / "stacking"
    for step in ("010000", "011000", "012000", NEWEST):
        copy(good, served, step)
    return served


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Command]:
    flags = ("--watch", "--watch_interval=0.1", "--model_memory_gb=1")
    with command(run.parent / "log", f"--checkpoints_dir={run}", *flags) as server:
        assert f" serving act {NEWEST}" in server.wait_until_serving()
        yield server


def step_of(run: Path, step: str) -> Path:
    return run / "checkpoints" / step


def copy(source: Path, target: Path, step: str) -> None:
    """Publish a checkpoint as training does: whole, at once."""
    hidden = target / "checkpoints" / f".{step}"
    shutil.copytree(step_of(source, step), hidden)
    hidden.rename(step_of(target, step))


class Robot(Neighbour):
    """Sends one observation again and again; the answer may not change."""

    first: Any = None

    def observation(self, number: int) -> dict[str, Any]:
        return observation(1)

    def is_right(self, number: int, reply: dict[str, Any]) -> bool:
        poses = [action["robot_command"]["pose"] for action in reply["result"]]
        if self.first is None:
            self.first = poses
        return np.allclose(poses, self.first, atol=1e-5)


def refusal(port: int, step: str) -> str:
    """With which words a new session is refused."""
    with raw(port, f"/api/v1/session/{step}") as session:
        message = after_loading(session)
        assert message["status"] == "error", message
        with contextlib.suppress(ConnectionClosed):
            session.recv(timeout=20)
        assert session.close_code in (1008, 1011)
    return str(message["error"])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "model.safetensors": lambda path: os.truncate(path, path.stat().st_size // 2),
    "config.json": lambda path: path.write_text("{"),
    "contract.json": lambda path: path.write_bytes(b"\x00\xff" * 50),
    "policy_preprocessor.json": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_refuses_its_new_sessions_by_name_until_it_is_mended(
    good: Path, run: Path, server: Command, name: str
) -> None:
    path = step_of(run, "010000") / "pretrained_model"
    with Robot(server.port):
        DAMAGES[name](path / name)
        error = refusal(server.port, "010000")
        assert "stacking/checkpoints/010000" in error
        assert str(run) not in error
        assert "\n" not in error
        shutil.copy(step_of(good, "010000") / "pretrained_model" / name, path / name)
    # Loaded only here, at the end: what is loaded already is not read again.
    if name == list(DAMAGES)[-1]:
        with raw(server.port, "/api/v1/session/010000") as mended:
            assert ready(mended)["checkpoint_id"] == "010000"
            assert ask(mended, **observation())["result"]


def test_a_checkpoint_in_use_may_be_damaged_and_deleted(run: Path, server: Command) -> None:
    path = "/api/v1/session/011000"
    with Robot(server.port, path), Robot(server.port):
        weights = step_of(run, "011000") / "pretrained_model" / "model.safetensors"
        # In place, so that what maps the file into memory would see it.
        os.truncate(weights, 100)
        with raw(server.port, path) as another:
            ready(another)
            assert ask(another, **observation())["result"]
        shutil.rmtree(step_of(run, "011000"))
        assert "Checkpoint not found: 011000" in refusal(server.port, "011000")


def test_a_checkpoint_deleted_before_it_was_loaded_is_not_found(run: Path, server: Command) -> None:
    with Robot(server.port):
        shutil.rmtree(step_of(run, "012000"))
        error = refusal(server.port, "012000")
    assert error.startswith("Checkpoint not found: 012000. Available: ['010000'")


def test_a_new_checkpoint_that_is_damaged_is_not_taken_up_until_it_is_mended(
    good: Path, run: Path, server: Command
) -> None:
    staged = run.parent / "staged"
    shutil.copytree(step_of(good, "030000"), staged / "checkpoints" / "030000")
    weights = Path("pretrained_model") / "model.safetensors"
    os.truncate(step_of(staged, "030000") / weights, 1000)
    with Robot(server.port) as before:
        copy(staged, run, "030000")
        assert "cannot be loaded" in refusal(server.port, "030000")
        with raw(server.port) as session:
            assert ready(session)["checkpoint_id"] == NEWEST
        shutil.copy(step_of(good, "030000") / weights, step_of(run, "030000") / weights)
        wait_for_default(server.port, "030000")
        with raw(server.port) as session:
            assert ready(session)["checkpoint_id"] == "030000"
            new = [action["robot_command"]["pose"] for action in answers(session)]
    # The session that was open keeps the model that it began with.
    assert not np.allclose(new, before.first, atol=1e-3)


def answers(session: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = ask(session, **observation(1))["result"]
    return result


def wait_for_default(port: int, step: str) -> None:
    for _ in range(400):
        _, status = get(port, "/api/v1/status")
        if any(model["default"] and model["id"] == step for model in status["models"]):
            return
        with raw(port) as session:  # takes a moment, as waiting would
            ready(session)
    raise AssertionError(f"{step} was never taken up")


def test_a_run_that_is_gone_leaves_what_is_loaded(run: Path, server: Command) -> None:
    with Robot(server.port):
        shutil.rmtree(run)
        with raw(server.port) as session:
            ready(session)
            assert ask(session, **observation())["result"]
        assert "No checkpoints found" in refusal(server.port, "010000")
        assert get(server.port, "/livez")[0] == 200
        assert get(server.port, "/api/v1/models") == (200, {"models": []})
    server.process.terminate()
    server.assert_ends()
