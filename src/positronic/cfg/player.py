"""Players of action chunks by name for the command line: ``--player=.asynchronous``."""

from functools import partial

import configuronic as cfn

from positronic.policy import ChunkPlayer, MakePlayer


@cfn.config()
def synchronous(action_fps: float | None = None) -> MakePlayer:
    """Ask for the next chunk of actions when the present one is used up.

    Args:
        action_fps: Actions per second where the policy does not say when each is due.
    """
    return partial(ChunkPlayer, action_fps=action_fps)
