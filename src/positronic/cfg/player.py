"""Players of action chunks by name for the command line: ``--player=.asynchronous``."""

from functools import partial

import configuronic as cfn

from positronic.policy import AsynchronousPlayer, ChunkPlayer, MakePlayer

__all__ = ["asynchronous", "synchronous"]


@cfn.config()
def synchronous(action_fps: float | None = None) -> MakePlayer:
    """Request the next action chunk when the current one is used up.

    Args:
        action_fps: Actions per second, for policies whose actions have no timestamps.
    """
    return partial(ChunkPlayer, action_fps=action_fps)


@cfn.config()
def asynchronous(
    action_fps: float | None = None,
    cross_fade_s: float = 0.0,
    temporal_ensemble_coeff: float | None = None,
    margin_s: float = 0.05,
) -> MakePlayer:
    """Request the next action chunk while the current one plays.

    Args:
        action_fps: Actions per second, for policies whose actions have no timestamps.
        cross_fade_s: Duration in seconds of the cross-fade from one chunk to the next.
        temporal_ensemble_coeff: Infer continuously and play the mean of all current chunks,
            weighted by exp(-coeff * i), oldest first; ACT uses 0.01.
        margin_s: Seconds by which a chunk is requested earlier than expected to be necessary.
    """
    return partial(
        AsynchronousPlayer,
        action_fps=action_fps,
        cross_fade_s=cross_fade_s,
        temporal_ensemble_coeff=temporal_ensemble_coeff,
        margin_s=margin_s,
    )
