import numpy as np
import pytest

from positronic.curation import motion

T = np.arange(0, 4, 1 / motion.RATE_HZ)
REACH = np.stack([np.sin(T), np.cos(2 * T), 0.1 * T], axis=1)


def minimum_jerk(steps: int) -> motion.Series:
    share = np.arange(steps)[:, None] / (steps - 1)
    position: motion.Series = share**3 * (10 - 15 * share + 6 * share**2)
    return position


@pytest.mark.parametrize("steps", [-20, 0, 7, 30])
def test_the_lag_is_how_much_later_the_robot_moves(steps: int) -> None:
    moved = np.stack([np.sin(T - steps / 50), np.cos(2 * (T - steps / 50)), 0.1 * T], axis=1)
    assert motion.lag(REACH, moved) == pytest.approx(steps / 50, abs=0.021)


def test_the_offset_is_what_remains_after_the_lag() -> None:
    moved = np.roll(REACH, 5, axis=0)
    moved[:5] = REACH[0]
    assert motion.offset(REACH, moved, 0.1) == pytest.approx(0, abs=1e-9)
    assert motion.offset(REACH, moved + np.array([0, 0.03, 0.04]), 0.1) == pytest.approx(0.05)


@pytest.mark.parametrize("degrees", [0.0, 17.0, 170.0])
def test_the_turn_is_an_angle_whatever_the_signs(degrees: float) -> None:
    half = np.radians(degrees) / 2
    ours = np.tile([1.0, 0, 0, 0], (50, 1))
    theirs = np.tile([-np.cos(half), 0, -np.sin(half), 0], (50, 1))
    assert motion.turn(ours, theirs, 0.0) == pytest.approx(degrees, abs=1e-4)


def test_an_inverted_grip_has_the_opposite_correlation() -> None:
    grip = (T > 2).astype(float)[:, None]
    late = np.roll(grip, 4, axis=0)
    late[:4] = 0
    assert motion.agreement(grip, late) > 0.95
    assert motion.agreement(1 - grip, late) < -0.95
    assert np.isnan(motion.agreement(np.ones_like(grip), grip))


def test_standing_still_and_wandering() -> None:
    half = np.concatenate([REACH[:100], np.repeat(REACH[100:101], 100, axis=0)])
    assert motion.idle_share(half) == pytest.approx(0.5, abs=0.02)
    assert motion.idle_share(np.zeros((50, 3))) == 1.0
    line: motion.Series = np.arange(101.0)[:, None] * np.array([0.003, 0.004, 0.0])
    assert motion.path_length(line) == pytest.approx(0.5)
    assert motion.fast_speed(line) == pytest.approx(0.5 / 2)


def test_jerk_depends_on_neither_size_nor_duration() -> None:
    smooth, slow = (minimum_jerk(steps) for steps in (200, 400))
    # Of a minimum-jerk motion the integral of the squared jerk is 720 in units of size and time.
    assert motion.jerk(smooth) == pytest.approx(np.log(720), abs=0.2)
    assert motion.jerk(7 * slow) == pytest.approx(motion.jerk(smooth), abs=0.1)
    rough = smooth + np.random.default_rng(0).normal(0, 1e-3, smooth.shape)
    assert motion.jerk(rough) > motion.jerk(smooth) + 3


def test_a_command_at_its_limit_and_a_gap() -> None:
    clipped = np.clip(REACH, -0.5, 0.5)
    assert motion.saturation(REACH) < 0.02
    assert motion.saturation(clipped) > 0.3
    assert motion.gap(np.array([0, 10, 20, 70, 80], np.int64)) == 5
    assert np.isnan(motion.gap(np.array([3], np.int64)))
