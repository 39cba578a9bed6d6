"""Processing that public Positronic servers since 0.3 declare."""

from typing import Any

import numpy as np
import pytest

from positronic.errors import SessionError
from positronic.offboard import messages, wire
from positronic.offboard.local_stack import LocalStack


def stack(*parts: Any) -> LocalStack:
    return LocalStack({"seq": list(parts)}, "ws://robot:8000")


def part(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "version": 2, "args": args}


def actions(*grips: float) -> list[dict[str, Any]]:
    return [{"robot_command": {"type": "joint_pos"}, "target_grip": grip} for grip in grips]


@pytest.mark.parametrize(("flips", "open_there"), [(0, 0.0), (1, 1.0), (2, 0.0)])
def test_an_open_grip_is_1_here_and_0_there_unless_it_is_flipped(
    flips: int, open_there: float
) -> None:
    found = stack(part("chunked_schedule", fps=10), *[part("flip_grip")] * flips)
    assert found.encode({"grip": 1.0, "task": "x"}) == {"grip": open_there, "task": "x"}
    (action,) = found.decode(actions(open_there))
    assert action["target_grip"] == 1.0


def test_arms_are_flipped_by_name() -> None:
    found = stack(part("flip_grip", arms=["left"]))
    assert found.encode({"grip.left": 0.9, "grip.right": 0.9}) == {
        "grip.left": pytest.approx(0.9),
        "grip.right": pytest.approx(0.1),
    }


def test_a_threshold_applies_to_the_grip_as_the_server_counts_it() -> None:
    found = stack(part("binarize_grip_inference", threshold=0.7))
    assert [a["target_grip"] for a in found.decode(actions(0.69, 0.71))] == [1.0, 0.0]
    found = stack(part("binarize_grip_inference", threshold=0.7), part("flip_grip"))
    assert [a["target_grip"] for a in found.decode(actions(0.29, 0.31))] == [0.0, 1.0]


def test_the_declared_rate_and_horizon_time_a_chunk() -> None:
    found = stack(part("stop_on_fault"), part("chunked_schedule", fps=50, horizon_sec=0.05))
    assert found.fps == 50
    played = found.decode(actions(0, 0, 0, 0, 0))
    assert [action["timestamp"] for action in played] == [0.0, 0.02, 0.04, 0.05]
    assert played[-1] == {"timestamp": 0.05}
    whole = stack(part("chunked_schedule", fps=50)).decode(actions(0, 0))
    assert [action["timestamp"] for action in whole] == [0.0, 0.02]
    told = [{**action, "timestamp": 7.0} for action in actions(0)]
    assert stack(part("chunked_schedule", fps=50)).decode(told)[0]["timestamp"] == 7.0
    assert stack(part("chunked_schedule")).fps is None


@pytest.mark.parametrize(
    ("component", "shape"),
    [
        (part("restrict_image_size", width=100, height=60), (60, 80, 3)),
        (part("restrict_image_size"), (240, 320, 3)),
        (part("transform_images", width=100, height=60, mode="pad", paths=None), (60, 100, 3)),
        (part("transform_images", width=400, height=60, mode="stretch"), (60, 400, 3)),
    ],
)
def test_images_get_the_declared_size(component: Any, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    depth = np.zeros((240, 320), np.uint16)
    obs = {"image.wrist": image, "depth": depth}
    sent = stack(component).encode(obs)
    assert sent["image.wrist"].shape == shape
    assert sent["depth"] is depth
    assert obs["image.wrist"] is image


def test_images_are_compressed_if_declared() -> None:
    sent = stack(part("encode_images", quality=80)).encode({"image": np.zeros((8, 8, 3), np.uint8)})
    assert wire.unpack(wire.pack(sent))["image"].shape == (8, 8, 3)
    assert b"__jpeg__" in sent["image"]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (part("temporal_stack", frames=2), "has 'temporal_stack': it declares processing that"),
        ({"par": [part("metadata")]}, "name"),
        ({"seq": "all"}, "name"),
        ({"seq": [{"seq": [{"seq": [7]}]}]}, "local_stack of ws://robot"),
        (part("chunked_schedule", fps=0), "chunked_schedule in the local_stack"),
        (part("chunked_schedule", fps="fast"), "fps"),
        (part("transform_images", width=64, height=64, resample="area"), "resample"),
        (part("restrict_image_size", width=-1), "width"),
        (part("flip_grip", arms="left"), "arms"),
        (part("binarize_grip_inference", key="robot_command"), "key"),
        (None, "local_stack of ws://robot"),
    ],
)
def test_what_this_client_does_not_have_is_refused_by_name(declared: Any, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        LocalStack(declared, "ws://robot:8000")


def test_a_stack_nested_without_end_is_refused() -> None:
    declared: Any = part("flip_grip")
    for _ in range(100_000):
        declared = {"seq": [declared]}
    with pytest.raises(SessionError, match="local_stack of ws://robot"):
        LocalStack(declared, "ws://robot:8000")


def test_commands_are_taken_out_of_their_envelope() -> None:
    command = {"type": "joint_pos", "positions": np.zeros(7)}
    frame = wire.pack({"result": [{"robot_command": {b"__cmd__": command}, "target_grip": 0.5}]})
    (action,) = messages.actions(wire.unpack(frame))
    assert action["robot_command"]["type"] == "joint_pos"
    assert action["target_grip"] == 0.5
    with pytest.raises(SessionError, match=r"the target_grip\.left of an action is a str"):
        messages.actions({"result": [{"target_grip.left": "open"}]})
    for malformed in ({b"__cmd__": 7}, {b"__cmd__": {"type": 7}}):
        with pytest.raises(SessionError, match="is not a command"):
            messages.actions({"result": [{"robot_command": malformed}]})
