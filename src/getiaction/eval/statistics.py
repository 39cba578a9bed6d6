"""Success rate with its Wilson interval, and mean rewards and lengths of episodes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.statistics import wilson_interval

if TYPE_CHECKING:
    from getiaction.eval.episode import Episode

NOT_MEASURED = "success not measured"


def aggregate(episodes: "Sequence[Episode]") -> dict[str, Any]:
    """Summarise episodes as LeRobot does, with a confidence interval of the success rate.

    Returns:
        ``avg_sum_reward``, ``avg_max_reward``, ``pc_success`` (0..100), ``avg_episode_length``,
        ``n_episodes``, ``n_successes``, ``success_rate`` (0..1) and the 95 % interval of it,
        ``success_rate_low`` and ``success_rate_high``. If no episode's success was measured, all
        success values are None, not 0 %. If some were, the environment reports success, and an
        episode without a report counts as failed. Without episodes, values are None and NaN.
    """
    count = len(episodes)
    measured = any(episode.success is not None for episode in episodes)
    successes = sum(bool(episode.success) for episode in episodes) if measured else None
    rate = None if successes is None else successes / count
    low, high = (None, None) if successes is None else wilson_interval(successes, count)
    return {
        "avg_sum_reward": _mean([episode.sum_reward for episode in episodes]),
        "avg_max_reward": _mean([episode.max_reward for episode in episodes]),
        "pc_success": None if rate is None else 100 * rate,
        "avg_episode_length": _mean([episode.episode_length for episode in episodes]),
        "n_episodes": count,
        "n_successes": successes,
        "success_rate": rate,
        "success_rate_low": low,
        "success_rate_high": high,
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
