"""Policy and session interfaces, and players of action chunks."""

from positronic.policy.asynchronous_player import AsynchronousPlayer
from positronic.policy.base import Action, Policy, Session
from positronic.policy.chunk_player import ChunkPlayer
from positronic.policy.player import Delay, Jump, MakePlayer, Player, fixed, measured, no_delay

__all__ = [
    "Action",
    "AsynchronousPlayer",
    "ChunkPlayer",
    "Delay",
    "Jump",
    "MakePlayer",
    "Player",
    "Policy",
    "Session",
    "fixed",
    "measured",
    "no_delay",
]
