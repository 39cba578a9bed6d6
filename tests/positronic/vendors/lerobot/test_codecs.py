import subprocess
import sys
from pathlib import Path
from typing import Any

import configuronic as cfn
import numpy as np
import pytest

from positronic.cli import status
from positronic.codec import Codec, from_spec
from positronic.codec.vectors import QUAT_REFERENCE
from positronic.vendors.lerobot import codecs

MODULE = "@positronic.vendors.lerobot.codecs"


def observation() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "robot_state.ee_pose": np.array([0.4, 0.1, 0.3, 0.0, 1.0, 0.0, 0.0]),
        "robot_state.q": np.arange(7, dtype=np.float32),
        "grip": 0.5,
        "object_poses": np.array([0.5, 0, 0, 1, 0, 0, 0, 0.6, 0.1, 0, 1, 0, 0, 0], float),
        "image.wrist": rng.integers(0, 256, (240, 320, 3), dtype=np.uint8),
        "image.exterior": rng.integers(0, 128, (240, 320, 3), dtype=np.uint8),
        "robot_commands.pose": np.array([0.4, 0.1, 0.2, 0.0, 0.0, 1.0, 0.0]),
        "target_grip": 1.0,
    }


@cfn.config()
def show(codec: Codec) -> int:
    """Print a codec's features."""
    print(codec.name, codec.features)
    return 0


def test_eepose_absolute_is_the_public_one() -> None:
    codec, obs = codecs.eepose_absolute(), observation()
    assert codec.features == {
        "observation.state": {
            "dtype": "float32",
            "shape": (8,),
            "names": ["robot_state.ee_pose", "grip"],
        },
        "observation.images.left": {
            "dtype": "video",
            "shape": (224, 224, 3),
            "names": ["height", "width", "channel"],
        },
        "observation.images.side": {
            "dtype": "video",
            "shape": (224, 224, 3),
            "names": ["height", "width", "channel"],
        },
        "action": {"dtype": "float32", "shape": (8,), "names": ["actions"]},
    }
    encoded = codec.encode(obs)
    expected = np.array([0.4, 0.1, 0.3, 0, 1, 0, 0, 0.5], np.float32)
    np.testing.assert_array_equal(encoded["observation.state"], expected)
    # Wrist is left, exterior is side; 320x240 leaves 28 black rows above and below.
    for name, source in (("left", "image.wrist"), ("side", "image.exterior")):
        image = encoded[f"observation.images.{name}"]
        assert not image[:28].any()
        assert not image[196:].any()
        assert abs(float(image[28:196].mean()) - float(obs[source].mean())) < 1
    np.testing.assert_array_equal(
        codec.encode_action(obs), np.array([0.4, 0.1, 0.2, 0, 0, 1, 0, 1], np.float32)
    )


def test_joints_absolute_sees_joints_and_acts_in_space() -> None:
    encoded = codecs.joints_absolute().encode(observation())
    np.testing.assert_array_equal(encoded["observation.state"], [0, 1, 2, 3, 4, 5, 6, 0.5])
    assert codecs.joints_absolute().features["observation.state"]["names"] == [
        "robot_state.q",
        "grip",
    ]
    assert codecs.joints_absolute().action_inputs == ("robot_commands.pose", "target_grip")


def test_eepose_state_sees_objects_and_no_images() -> None:
    codec = codecs.eepose_state()
    assert codec.inputs == ("robot_state.ee_pose", "grip", "object_poses")
    encoded = codec.encode(observation())
    assert list(encoded) == ["observation.state", "observation.environment_state"]
    np.testing.assert_array_equal(
        encoded["observation.environment_state"],
        np.array([0.5, 0, 0, 0, 1, 0.6, 0.1, 0, 0, 1], np.float32),
    )
    assert codecs.eepose_state(n_objects=3).features["observation.environment_state"]["shape"] == (
        15,
    )


@pytest.mark.parametrize("name", codecs.__all__)
def test_each_codec_survives_its_spec(name: str) -> None:
    codec = getattr(codecs, name)()
    assert codec.name == name
    assert from_spec(codec.to_spec()) == codec


def test_the_guide_has_a_line_for_each_codec() -> None:
    guide = (Path(__file__).parents[4] / "docs/codecs.md").read_text()
    assert [name for name in codecs.__all__ if f"| `{name}` |" not in guide] == []


def test_the_command_line_reaches_the_image_size(capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--codec={MODULE}.eepose_absolute", "--codec.image_size=[64,48]"]
    assert status(show, "show", words) == 0
    assert "(64, 48, 3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "reference"),
    [("None", None), ("[0,1,0,0]", (0.0, 1.0, 0.0, 0.0)), (None, QUAT_REFERENCE)],
)
def test_the_command_line_reaches_the_signs_of_quaternions(
    capsys: pytest.CaptureFixture[str], word: str | None, reference: object
) -> None:
    @cfn.config()
    def show_reference(codec: Codec) -> int:
        """Print a codec's quaternions."""
        print(codec.quaternions)
        return 0

    words = [f"--codec={MODULE}.eepose_absolute"]
    words += [] if word is None else [f"--codec.quat_reference={word}"]
    assert status(show_reference, "show", words) == 0
    found = {"observation.state": {3: reference}} if reference else {}
    assert capsys.readouterr().out.strip() == str(found)


def test_an_unknown_codec_is_one_line_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(show, "show", [f"--codec={MODULE}.eepose_absolut"]) != 0
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "eepose_absolute" in error
    assert "joints_absolute" in error


def test_a_client_gets_codecs_without_anything_heavy() -> None:
    heavy = ("torch", "lerobot", "pyarrow", "av", "mujoco", "lightning", "fastapi", "PIL", "scipy")
    code = (
        "import sys, positronic.vendors.lerobot.codecs as c, positronic.vendors.lerobot.convert;"
        "c.eepose_absolute();"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
