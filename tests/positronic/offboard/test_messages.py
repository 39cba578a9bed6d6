from typing import Any

import numpy as np
import pytest

from positronic.codec import Codec, Contract, FlipGrip, Image
from positronic.offboard import wire
from positronic.offboard.messages import RequestFilter, image_sizes
from positronic.vendors.lerobot import codecs


def contract(codec: Codec) -> dict[str, Any]:
    return Contract.of(codec, fps=15).to_json()


def small_cameras() -> Codec:
    codec: Codec = codecs.eepose_absolute(image_size=(48, 64))
    return codec


def observation(size: tuple[int, int]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "robot_state.ee_pose": np.array([0.4, 0, 0.2, 1, 0, 0, 0]),
        "robot_state.q": np.zeros(7, np.float32),
        "grip": 1.0,
        "image.wrist": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "image.exterior": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "image.agent_view": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "task": "stack",
    }


def test_only_what_the_codec_reads_and_the_task_is_sent() -> None:
    request = RequestFilter(contract(small_cameras()))(observation((48, 64)))
    assert sorted(request) == [
        "grip",
        "image.exterior",
        "image.wrist",
        "robot_state.ee_pose",
        "task",
    ]


@pytest.mark.parametrize("document", [None, {}, "text", {"inputs": []}])
def test_without_a_contract_everything_is_sent_as_it_is(document: Any) -> None:
    obs = observation((100, 100))
    request = RequestFilter(document)(obs)
    assert list(request) == list(obs)
    assert all(request[key] is obs[key] for key in obs)


@pytest.mark.parametrize("size", [(240, 320), (97, 301), (500, 20), (48, 65), (720, 1280)])
def test_what_the_codec_makes_of_a_shrunk_image_is_the_same_to_the_last_bit(
    size: tuple[int, int],
) -> None:
    codec = small_cameras()
    obs = observation(size)
    request = RequestFilter(contract(codec))(obs)
    assert request["image.wrist"].shape == (48, 64, 3)
    expected, got = codec.encode(obs), codec.encode(request)
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key])


def test_an_image_that_would_grow_is_sent_as_it_is() -> None:
    obs = observation((24, 32))
    assert RequestFilter(contract(small_cameras()))(obs)["image.wrist"] is obs["image.wrist"]


@pytest.mark.parametrize(
    "image", [np.zeros((200, 200), np.uint8), np.zeros((200, 200, 3), np.float32)]
)
def test_what_is_no_image_goes_to_the_server_which_says_so(image: np.ndarray[Any, Any]) -> None:
    obs = {**observation((48, 64)), "image.wrist": image}
    assert RequestFilter(contract(small_cameras()))(obs)["image.wrist"] is image


def test_images_that_something_else_reads_first_are_not_touched() -> None:
    one = Image("a", "image.wrist", (32, 32))
    other = Image("b", "image.wrist", (64, 64))
    assert image_sizes(contract(one)) == {"image.wrist": (32, 32)}
    assert image_sizes(contract(one & other)) == {}
    assert image_sizes(contract(FlipGrip() | small_cameras())) == {}
    assert image_sizes(contract(codecs.eepose_state())) == {}


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "of a newer version"},
        {"kind": "parallel", "parts": 5},
        {"kind": "parallel", "parts": [{"kind": "image"}]},
        {"kind": "image", "key": "a", "source": "image.wrist", "size": 64},
        {"kind": "image", "key": "a", "source": ["image.wrist"], "size": [64, 64]},
        {"kind": "image", "key": "a", "source": "image.wrist", "size": [-1, 0]},
        {"kind": "image", "key": "a", "source": "image.wrist", "size": ["a", "b"]},
    ],
)
def test_a_codec_that_is_none_here_has_the_server_resize(spec: Any) -> None:
    obs = observation((240, 320))
    request = RequestFilter({"codec": {"name": "other", "spec": spec}})(obs)
    assert request["image.wrist"].shape in ((240, 320, 3), (64, 64, 3))


def test_the_seed_of_a_policy_that_draws_numbers_is_sent() -> None:
    request = RequestFilter(contract(small_cameras()))({**observation((48, 64)), "seed": 7})
    assert request["seed"] == 7


def test_public_servers_which_would_take_a_seed_for_a_signal_get_none() -> None:
    assert list(RequestFilter(None)({"grip": 1.0, "seed": 7, "task": "stack"})) == ["grip", "task"]


def test_images_are_compressed_after_they_are_shrunk_and_nothing_else_is() -> None:
    smooth = np.stack([np.add.outer(np.arange(240), np.arange(320)) // 4] * 3, -1).astype(np.uint8)
    obs = {**observation((240, 320)), "image.wrist": smooth}
    plain = RequestFilter(contract(small_cameras()))(obs)
    request = RequestFilter(contract(small_cameras()), jpeg_quality=95)(obs)
    back = wire.unpack(wire.pack(request))
    assert back["image.wrist"].shape == (48, 64, 3)
    assert np.abs(back["image.wrist"].astype(int) - plain["image.wrist"]).max() <= 4
    for key in ("robot_state.ee_pose", "grip", "task"):
        np.testing.assert_array_equal(back[key], obs[key])
    assert obs["image.wrist"] is smooth


@pytest.mark.parametrize(
    "value", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), [1]]
)
def test_what_is_no_image_is_not_compressed(value: Any) -> None:
    assert RequestFilter(None, jpeg_quality=90)({"x": value})["x"] is value
