from functools import partial

import pytest

from foundation.errors import UsageError
from positronic.inference.flags import read_delays, read_size
from positronic.inference.setting import Setting
from positronic.policy import AsynchronousPlayer


def test_every_delay_is_played_on_the_same_seeds() -> None:
    setting = Setting("stack_cubes", 20.0, delays=(0.0, 0.2))
    plan = setting.plan(7, 3)
    assert [rollout.index for rollout in plan] == list(range(6))
    assert [rollout.seed for rollout in plan] == [7, 8, 9, 7, 8, 9]
    assert [rollout.delay for rollout in plan] == [0.0] * 3 + [0.2] * 3
    assert [r.delay for r in Setting("stack_cubes", 20.0).plan(7, 2)] == [None, None]


def test_what_an_inference_is_charged() -> None:
    assert Setting("stack_cubes", 1.0).charged(None)(0.5) == 0.0
    assert Setting("stack_cubes", 1.0, charge_inference_time=True).charged(None)(0.5) == 0.5
    assert Setting("stack_cubes", 1.0, charge_inference_time=True).charged(0.2)(0.5) == 0.2


def test_the_player_is_named_with_what_it_was_given() -> None:
    assert Setting("stack_cubes", 1.0).player_name == "synchronous"
    player = partial(AsynchronousPlayer, cross_fade_s=0.1, temporal_ensemble_coeff=None)
    assert Setting("stack_cubes", 1.0, player=player).player_name == (
        "asynchronous (cross_fade_s=0.1)"
    )


def test_delays_and_sizes_are_read_as_people_type_them() -> None:
    assert read_delays(None) == ()
    assert read_delays(0.2) == (0.2,)
    assert read_delays([0, 0.1]) == (0.0, 0.1)
    for strange in (-1, "0.2", [], [True], [0.1, 0.1], float("inf"), float("nan")):
        with pytest.raises(UsageError, match="expected seconds"):
            read_delays(strange)
    assert read_size(64) == (64, 64)
    assert read_size((240, 320)) == (240, 320)
    with pytest.raises(UsageError, match="expected HEIGHT,WIDTH"):
        read_size("big")
