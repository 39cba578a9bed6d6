"""What a policy and a session are, and how chunks of actions are played in time."""

from positronic.policy.base import Action, Policy, Session
from positronic.policy.chunk_player import ChunkPlayer

__all__ = ["Action", "ChunkPlayer", "Policy", "Session"]
