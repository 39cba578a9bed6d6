import time
from collections.abc import Mapping
from typing import Any

import pytest

from positronic.errors import SessionError
from positronic.policy import Action, ChunkPlayer, Player, Session, fixed, measured, no_delay
from tests.positronic.policy.sessions import Timekeeper, grips
from tests.positronic.policy.sessions import play as steps


class Counting:
    """A session whose n-th chunk holds n*100, n*100+1, ... as grips."""

    def __init__(self, chunk: list[Action], meta: dict[str, Any] | None = None) -> None:
        self.chunk = chunk
        self.meta = meta or {}
        self.asked: list[Any] = []

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        self.asked.append(obs["t"])
        n = len(self.asked) * 100
        return [
            action if action.keys() == {"timestamp"} else {**action, "target_grip": n + i}
            for i, action in enumerate(self.chunk)
        ]

    def close(self) -> None:
        pass


def stamped(count: int, fps: float = 15.0) -> list[Action]:
    return [{"target_grip": 0, "timestamp": i / fps} for i in range(count)]


def play(player: ChunkPlayer, steps: int, fps: float) -> list[int]:
    times = [(k * 10**9 // int(fps)) / 1e9 for k in range(steps)]
    return [player.action({"t": round(t, 4)}, t)["target_grip"] for t in times]


def test_counting_is_a_session() -> None:
    assert isinstance(Counting([]), Session)


@pytest.mark.parametrize("count", [1, 3, 100])
def test_at_the_frame_rate_each_action_plays_once_and_in_order(count: int) -> None:
    session = Counting(stamped(count))
    player = ChunkPlayer(session)
    steps = 2 * count + 1
    expected = [(1 + k // count) * 100 + k % count for k in range(steps)]
    assert play(player, steps, 15) == expected
    assert player.inferences == 3
    assert all(latency >= 0 for latency in player.latencies)


def test_a_faster_control_rate_holds_actions_and_a_slower_one_skips() -> None:
    assert play(ChunkPlayer(Counting(stamped(3))), 6, 30) == [100, 100, 101, 101, 102, 102]
    assert play(ChunkPlayer(Counting(stamped(4, fps=30.0))), 3, 15) == [100, 102, 200]


def test_time_counts_from_the_moment_the_chunk_was_asked_for() -> None:
    player = ChunkPlayer(Counting(stamped(2, fps=10.0)))
    times = [5.03, 5.1, 5.14, 5.22, 5.24, 5.3]
    grips = [player.action({"t": t}, t)["target_grip"] for t in times]
    assert grips == [100, 100, 101, 101, 200, 200]


def test_without_timestamps_the_rate_is_the_servers_then_fifteen() -> None:
    bare: list[Action] = [{"target_grip": 0}] * 3
    assert play(ChunkPlayer(Counting(bare, {"action_fps": 30.0})), 4, 30) == [100, 101, 102, 200]
    assert play(ChunkPlayer(Counting(bare)), 4, 15) == [100, 101, 102, 200]
    assert play(ChunkPlayer(Counting(bare), action_fps=5), 4, 5) == [100, 101, 102, 200]


def test_a_closing_entry_ends_the_chunk_and_is_never_played() -> None:
    chunk = [*stamped(2), {"timestamp": 4 / 15}]
    assert play(ChunkPlayer(Counting(chunk)), 5, 15) == [100, 101, 101, 101, 200]


def test_reset_asks_anew_and_may_go_back_in_time() -> None:
    session = Counting(stamped(10))
    player = ChunkPlayer(session)
    play(player, 3, 15)
    player.reset()
    assert player.inferences == 0
    assert play(player, 1, 15) == [200]
    other = Counting(stamped(10))
    player.reset(other)
    assert play(player, 1, 15) == [100]
    assert other.asked


def test_time_that_goes_back_without_reset_is_refused() -> None:
    player = ChunkPlayer(Counting(stamped(10)))
    player.action({"t": 2.0}, 2.0)
    with pytest.raises(SessionError, match=r"went back from 2\.000 s to 1\.000 s"):
        player.action({"t": 1.0}, 1.0)


@pytest.mark.parametrize("chunk", [[], [{"timestamp": 1.0}]])
def test_a_chunk_without_actions_is_an_error(chunk: list[Action]) -> None:
    with pytest.raises(SessionError, match="no action"):
        ChunkPlayer(Counting(chunk)).action({"t": 0.0}, 0.0)


def test_timestamps_out_of_order_are_refused() -> None:
    chunk = [{"target_grip": 0, "timestamp": 0.2}, {"target_grip": 0, "timestamp": 0.1}]
    with pytest.raises(SessionError, match="in order"):
        ChunkPlayer(Counting(chunk)).action({"t": 0.0}, 0.0)


def test_a_charged_delay_holds_the_last_action_and_then_plays_the_whole_chunk() -> None:
    session = Timekeeper(5)
    player: Player = ChunkPlayer(session, delay=fixed(0.2))
    actions = grips(steps(player, 21))
    # The first chunk is free: the robot stands still until it has one anyway.
    assert actions == [0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 9, 9, 9, 9, 13, 14, 15, 16, 17]
    assert session.asked == [0, 5, 13]
    assert (player.asked, player.inferences, player.starved) == (3, 3, 6)
    assert [jump.grip for jump in player.jumps] == [1, 4]
    player.reset()
    assert (player.asked, player.starved, player.jumps) == (0, 0, [])
    assert grips(steps(player, 5)) == [0, 1, 2, 3, 4]


def test_a_delay_that_is_no_multiple_of_the_control_step_costs_the_whole_step() -> None:
    player = ChunkPlayer(Timekeeper(5), delay=fixed(0.14))
    assert grips(steps(player, 10)) == [0, 1, 2, 3, 4, 4, 4, 4, 5, 6]


def test_the_measured_delay_is_what_the_inference_took() -> None:
    player = ChunkPlayer(Timekeeper(2, lambda n: time.sleep(0.07)), delay=measured)
    steps(player, 6)
    assert player.latencies[1] >= 0.07
    assert player.starved >= 2


def test_without_a_charge_time_stands_still_and_nothing_starves() -> None:
    player = ChunkPlayer(Timekeeper(2, lambda n: time.sleep(0.01)), delay=no_delay)
    assert grips(steps(player, 6)) == [0, 1, 2, 3, 4, 5]
    assert player.starved == 0
