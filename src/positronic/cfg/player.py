"""Players of action chunks by name for the command line: ``--player=.asynchronous``."""

from functools import partial

import configuronic as cfn

from positronic.policy import AsynchronousPlayer, ChunkPlayer, MakePlayer

__all__ = ["asynchronous", "synchronous"]


@cfn.config()
def synchronous(action_fps: float | None = None) -> MakePlayer:
    """Ask for the next chunk of actions when the present one is used up.

    Args:
        action_fps: Actions per second where the policy does not say when each is due.
    """
    return partial(ChunkPlayer, action_fps=action_fps)


@cfn.config()
def asynchronous(
    action_fps: float | None = None,
    cross_fade_s: float = 0.0,
    temporal_ensemble_coeff: float | None = None,
    margin_s: float = 0.05,
) -> MakePlayer:
    """Ask for the next chunk of actions while the present one plays.

    Args:
        action_fps: Actions per second where the policy does not say when each is due.
        cross_fade_s: Seconds within which the actions go over from one chunk to the next.
        temporal_ensemble_coeff: Ask as often as answers come, and play the mean of all chunks,
            weighted by exp(-coeff * i) from the oldest on; ACT uses 0.01.
        margin_s: How many seconds earlier than expected to be necessary a chunk is asked for.
    """
    return partial(
        AsynchronousPlayer,
        action_fps=action_fps,
        cross_fade_s=cross_fade_s,
        temporal_ensemble_coeff=temporal_ensemble_coeff,
        margin_s=margin_s,
    )
