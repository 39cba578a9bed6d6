import contextlib
import threading
import time
from functools import partial
from itertools import pairwise
from math import exp
from typing import Any

import numpy as np
import pytest

from foundation.errors import UsageError
from positronic.errors import ServerGone, SessionError
from positronic.geom import pose_to_wire, quat_from_yaw
from positronic.policy import AsynchronousPlayer, ChunkPlayer, Player, Session, fixed, measured
from tests.positronic.offboard.running import serving
from tests.positronic.offboard.scripted import client
from tests.positronic.offboard.small_models import Source
from tests.positronic.policy.sessions import (
    FPS,
    Timekeeper,
    first_joints,
    grips,
    numbered,
    play,
    sleepy,
)


def make(session: Session, **options: Any) -> AsynchronousPlayer:
    return AsynchronousPlayer(session, **{"delay": fixed(0.2), **options})


def test_it_never_starves_at_200_ms_on_chunks_of_10_at_15_hz_and_is_aligned_exactly() -> None:
    session = Timekeeper(10)
    player: Player = make(session)
    assert grips(play(player, 150)) == list(range(150))
    assert player.starved == 0
    assert all(jump.radians < 1e-9 for jump in player.jumps)
    player.close()
    assert player.asked == len(session.asked) == 25
    assert session.asked == [0, *range(6, 150, 6)]
    assert player.inferences == len(player.jumps) + 1 == 25
    assert threading.current_thread() not in session.threads


def test_the_synchronous_player_starves_where_the_asynchronous_one_does_not() -> None:
    synchronous = ChunkPlayer(Timekeeper(10), delay=fixed(0.2))
    play(synchronous, 60)
    # Of every 13 steps it stands still in 3, but for the first chunk.
    assert synchronous.starved == 3 * 4
    player = make(Timekeeper(10))
    play(player, 60)
    assert player.starved == 0
    player.close()


@pytest.mark.parametrize("options", [{}, {"cross_fade_s": 0.2}, {"temporal_ensemble_coeff": 0.01}])
def test_with_a_fixed_delay_the_clock_on_the_wall_decides_nothing(options: Any) -> None:
    runs = []
    for seed in range(3):
        pause = sleepy(100 + seed)
        session = Timekeeper(10, sleepy(seed), numbered)
        player = make(session, **options)
        actions = play(player, 60, pause=partial(pause, 0))
        runs.append((first_joints(actions), grips(actions), session.asked, player.jumps))
        player.close()
    assert runs[0] == runs[1] == runs[2]


def test_it_goes_on_playing_while_an_answer_is_under_way() -> None:
    release = threading.Event()

    def wait(n: int) -> None:
        assert n == 1 or release.wait(20)

    session = Timekeeper(10, wait)
    player = make(session)
    # Asked at step 6 (200 ms and the margin before the end), due at step 9: until then none waits.
    assert grips(play(player, 9)) == list(range(9))
    assert (player.asked, player.inferences) == (2, 1)
    release.set()
    assert grips(play(player, 11, first=9)) == list(range(9, 20))
    assert session.asked[:3] == [0, 6, 12]
    player.close()


def test_the_measured_delay_is_charged_as_it_was() -> None:
    seconds = 0.03
    player = make(Timekeeper(10, lambda n: time.sleep(seconds)), delay=measured, margin_s=0.0)
    play(player, 30)
    assert all(latency >= seconds for latency in player.latencies)
    assert player.asked >= 3
    player.close()


def test_a_delay_longer_than_a_chunk_starves_and_is_counted() -> None:
    session = Timekeeper(10)
    player = make(session, delay=fixed(1.0))
    actions = grips(play(player, 50))
    # Nothing can overlap: plays 10 steps, stands still for 15, and the answer is played whole.
    assert actions[:25] == [*range(10), *[9] * 15]
    assert actions[25:35] == list(range(10, 20))
    assert actions[35:] == [19] * 15
    assert player.starved == 30
    player.close()
    assert session.asked == [0, 10, 35]


def test_an_answer_that_comes_too_late_is_played_from_where_the_robot_stopped() -> None:
    charged = {"delay": 0.2}
    player = make(Timekeeper(10), delay=lambda seconds: charged["delay"])
    assert grips(play(player, 7)) == list(range(7))
    charged["delay"] = 0.6  # the one asked for at step 6 takes longer than any before
    assert grips(play(player, 10, first=7)) == [7, 8, 9, *[9] * 5, 10, 11]
    assert player.starved == 5
    player.close()


def test_the_cross_fade_goes_from_the_old_chunk_to_the_new_one_without_a_step() -> None:
    player = make(Timekeeper(20, command=numbered), cross_fade_s=0.2)
    values = first_joints(play(player, 40))
    excess = [value - k for k, value in enumerate(values)]
    first = next(k for k, value in enumerate(excess) if value > 100)
    # The switch itself (one step before) is still all old; then a third of the way each step.
    np.testing.assert_allclose(
        excess[first - 2 : first + 4], [100, 100, 133.333333, 166.666667, 200, 200], atol=1e-4
    )
    assert max(b - a for a, b in pairwise(excess)) < 34
    assert player.starved == 0
    assert player.jumps[0].radians == pytest.approx(100)
    player.close()


def test_a_cross_fade_that_is_cut_by_the_next_one_goes_on_from_where_it_is() -> None:
    player = make(Timekeeper(6, command=numbered), cross_fade_s=0.5, delay=fixed(1 / FPS))
    values = first_joints(play(player, 60))
    excess = [value - k for k, value in enumerate(values)]
    assert max(b - a for a, b in pairwise(excess)) < 60
    assert excess[-1] > 1000
    player.close()


def test_poses_are_faded_on_a_line_and_on_an_arc() -> None:
    def command(step: float, n: int) -> dict[str, Any]:
        pose = np.array([0.1 * n, 0, 0, *quat_from_yaw(0.6 * n)])
        return {"type": "cartesian_pos", "pose": pose_to_wire(pose)}

    player = make(Timekeeper(10, command=command), cross_fade_s=0.2)
    poses = np.array([action["robot_command"]["pose"] for action in play(player, 14)])
    yaw = np.arctan2(poses[:, 6], poses[:, 3])
    np.testing.assert_allclose(yaw, 6 * poses[:, 0], atol=1e-6)
    steps = np.round(np.diff(poses[:, 0]), 5)
    assert set(steps) == {0.0, 0.03333}
    assert player.jumps[0].metres == pytest.approx(0.1)
    assert player.jumps[0].radians == pytest.approx(0.6)
    player.close()


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_temporal_ensembling_equals_a_direct_reckoning(delay: float) -> None:
    coeff, count = 0.1, 10
    session = Timekeeper(count, command=numbered)
    player = make(session, delay=fixed(delay), temporal_ensemble_coeff=coeff)
    values = first_joints(play(player, 40))
    lag = round(delay * FPS)
    player.close()
    assert session.asked == (list(range(40)) if lag == 0 else [0, *range(1, 40, lag)])
    assert player.starved == 0
    for step, value in enumerate(values):
        known = [
            (asked, n)
            for n, asked in enumerate(session.asked, start=1)
            if asked <= step < asked + count and (n == 1 or step >= asked + lag)
        ]
        weights = [exp(-coeff * i) for i in range(len(known))]
        said = [step + 100 * n for _, n in known]
        assert value == pytest.approx(np.average(said, weights=weights)), step


def test_what_the_thread_raises_is_raised_when_it_is_due_and_the_player_goes_on() -> None:
    def wait(n: int) -> None:
        if n == 2:
            raise SessionError("could not infer")

    session = Timekeeper(10, wait)
    player = make(session)
    play(player, 9)
    with pytest.raises(SessionError, match="could not infer"):
        play(player, 1, first=9)
    # The chunk before is used up by now: it stands for three steps, and goes on from there.
    assert grips(play(player, 8, first=10)) == [9, 9, 9, 10, 11, 12, 13, 14]
    assert player.starved == 3
    player.close()


def test_a_server_that_goes_away_is_noticed_when_its_answer_is_due() -> None:
    def wait(n: int) -> None:
        if n == 2:
            raise ServerGone("the server went away")

    player = make(Timekeeper(10, wait))
    assert len(play(player, 9)) == 9
    with pytest.raises(ServerGone, match="went away"):
        play(player, 1, first=9)
    player.close()


def test_reset_drops_the_answer_under_way_and_starts_anew() -> None:
    first, second = Timekeeper(10), Timekeeper(10)
    player = make(first)
    play(player, 8)
    player.reset(second)
    assert first.asked == [0, 6]
    assert (player.asked, player.starved, player.latencies, player.jumps) == (0, 0, [], [])
    assert grips(play(player, 12)) == list(range(12))
    assert second.asked == [0, 6]
    assert len(first.asked) == 2
    player.close()


def test_close_joins_the_thread() -> None:
    release = threading.Event()
    session = Timekeeper(10, lambda n: None if n == 1 else assert_set(release))
    player = make(session)
    play(player, 8)
    release.set()
    player.close()
    assert [thread.is_alive() for thread in session.threads] == [False]


def assert_set(event: threading.Event) -> None:
    assert event.wait(20)


def test_time_that_goes_back_is_refused() -> None:
    player = make(Timekeeper(10))
    play(player, 2, first=10)
    with pytest.raises(SessionError, match="control time went back"):
        play(player, 1)
    player.close()


def test_a_policy_that_needs_every_observation_is_refused() -> None:
    every_step = Timekeeper(1, every_step=True, n_obs_steps=2)
    with pytest.raises(UsageError, match=r"timekeeper.*use --player=\.synchronous"):
        make(every_step)
    player = make(Timekeeper(10))
    with pytest.raises(UsageError, match="every control step"):
        player.reset(every_step)
    player.close()
    assert grips(play(ChunkPlayer(every_step), 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cross_fade_s": 0.1, "temporal_ensemble_coeff": 0.01}, "choose one"),
        ({"cross_fade_s": -0.1}, "expected 0 s or more"),
        ({"margin_s": float("nan")}, "expected 0 s or more"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make(Timekeeper(10), **options)


def test_it_plays_a_session_on_a_server_and_notices_when_that_goes() -> None:
    with contextlib.ExitStack() as server:
        port = server.enter_context(serving(Source(["010000"])))
        with client(port, reconnect_timeout=0.2).new_session() as session:
            player = make(session, delay=fixed(0.1), margin_s=0.0)
            counts = [player.action({"grip": 0.5}, k / 10)["count"] for k in range(9)]
            # Chunks of 3: asked for one step ahead, of which the first action is skipped.
            assert counts == [1, 1, 1, 2, 2, 3, 3, 4, 4]
            assert player.starved == 0
            server.close()
            rest = (player.action({"grip": 0.5}, k / 10) for k in range(9, 14))
            with pytest.raises(ServerGone, match="no new session"):
                list(rest)
            player.close()
