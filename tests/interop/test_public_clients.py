"""Unmodified clients of other people against this server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.geom import pose_to_wire
from positronic.vendors.lerobot.serving.policy import load_policy
from tests.interop.conftest import Public, Server, ask
from tests.positronic.offboard.serving.test_openpi import PosingSource, both
from tests.positronic.vendors.lerobot.small_policy import FPS, STEPS

pytestmark = pytest.mark.e2e

TOLERANCE = 1e-5


def expected(run: Path, obs: dict[str, Any], step: str | None = None) -> list[dict[str, Any]]:
    """What the same checkpoint answers without server and client."""
    policy: Any = load_policy(checkpoints_dir=str(run), checkpoint=step, device="cpu")
    actions: list[dict[str, Any]] = policy.new_session().infer(obs)
    assert len(actions) == STEPS
    return actions


def assert_same(got: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert set(a) == {"robot_command", "target_grip", "timestamp"}
        assert a["robot_command"]["type"] == "cartesian_pos"
        pose, wanted_pose = a["robot_command"]["pose"], b["robot_command"]["pose"]
        np.testing.assert_allclose(pose, wanted_pose, atol=TOLERANCE)
        assert a["target_grip"] == pytest.approx(b["target_grip"], abs=TOLERANCE)
        assert a["timestamp"] == b["timestamp"]


@pytest.mark.parametrize("version", ["0.2.1", "0.4.1"])
def test_positronic_is_served(
    version: str, public: Public, server: Server, run: Path, obs: dict[str, Any], obs_file: Path
) -> None:
    python = public(f"positronic-{version}") / "python"
    script = f"positronic_{version.replace('.', '_')}.py"
    found = ask(python, script, server.port, obs_file)
    assert_same(found["first"], expected(run, obs))
    assert found["second"] == found["first"]
    assert found["meta"]["checkpoint_id"] == "020000"
    assert found["meta"]["action_fps"] == FPS
    error = "codec 'eepose_absolute' needs image.exterior, image.wrist, robot_state.ee_pose"
    assert found["error"] == f"Server error: {error}; present: grip"
    assert found["unknown"] == (
        "Server error: Checkpoint not found: 77. Available: ['010000', '020000']"
    )
    assert found["other"][0] == "010000"
    assert_same(found["other"][1], expected(run, obs, "10000"))
    if version == "0.2.1":
        assert found["models"] == ["010000", "020000"]
    else:
        # This one lists no models; it has a protocol of its own, and falls back to the first.
        assert found["protocol"] == 1
        assert found["stack"] == "Sequential"
        assert found["keepalive"] == "unsupported"


def test_openpi_is_served(
    public: Public, server: Server, run: Path, obs: dict[str, Any], obs_file: Path
) -> None:
    python = public("openpi-client-0.1.2") / "python"
    found = ask(python, "openpi.py", server.openpi_port, obs_file)
    wanted = expected(run, obs)
    actions = np.array(found["actions"])
    assert actions.shape == (STEPS, 8)
    assert found["dtype"] == "float32"
    poses = [action["robot_command"]["pose"] for action in wanted]
    np.testing.assert_allclose(pose_to_wire(actions[:, :7]), poses, atol=TOLERANCE)
    grips = [action["target_grip"] for action in wanted]
    np.testing.assert_allclose(actions[:, 7], grips, atol=TOLERANCE)
    # openpi's broker plays the rows one after another, and asks anew after the last.
    assert found["steps"] == [*found["actions"], found["actions"][0]]
    assert found["metadata"]["action_names"] == ["x", "y", "z", "qw", "qx", "qy", "qz", "grip"]
    assert found["metadata"]["action_fps"] == FPS
    assert found["metadata"]["contract"]["codec"]["name"] == "eepose_absolute"
    assert found["server_timing"]["infer_ms"] > 0
    assert found["error"].startswith("Error in inference server:\ncodec 'eepose_absolute' needs")


def test_openpi_sends_the_token_as_its_key(public: Public, obs_file: Path) -> None:
    python = public("openpi-client-0.1.2") / "python"
    for served in both(PosingSource(["010000"]), token="secret"):
        for key in ((), ("wrong",)):
            with pytest.raises(AssertionError, match="HTTP 403"):
                ask(python, "openpi.py", served.openpi_port, obs_file, *key)
        assert ask(python, "openpi.py", served.openpi_port, obs_file, "secret")["actions"]
