from typing import Any

import configuronic as cfn
import pytest

from positronic import cli
from positronic.cfg.player import synchronous
from positronic.policy import AsynchronousPlayer, ChunkPlayer, fixed
from tests.positronic.policy.sessions import Timekeeper, grips, play

seen: list[Any] = []


@cfn.config(player=synchronous)
def command(player: Any) -> None:
    """Take a player."""
    seen.append(player)


def test_the_synchronous_player_is_the_default() -> None:
    assert cli.status(command, "command", []) == 0
    player = seen.pop()(Timekeeper(3), delay=fixed(0.2))
    assert isinstance(player, ChunkPlayer)
    assert grips(play(player, 7)) == [0, 1, 2, 2, 2, 2, 3]


def test_the_asynchronous_player_is_chosen_by_its_short_name() -> None:
    flags = ["--player=.asynchronous", "--player.margin_s=0", "--player.cross_fade_s=0.2"]
    assert cli.status(command, "command", flags) == 0
    session = Timekeeper(20)
    player = seen.pop()(session, delay=fixed(0.2))
    assert isinstance(player, AsynchronousPlayer)
    play(player, 40)
    assert player.starved == 0
    player.close()
    assert session.asked == [0, 14, 28]  # 200 ms and the fade before the end


def test_help_explains_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(command, "command", ["--player=.asynchronous", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--player.temporal_ensemble_coeff" in shown
