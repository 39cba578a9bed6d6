"""Policy evaluation in environments: rollouts, their results, success rates with intervals."""

from foundation.statistics import wilson_interval
from getiaction.eval.environments import Environments
from getiaction.eval.episode import Episode
from getiaction.eval.episodes import run_episodes
from getiaction.eval.evaluate import evaluate_policy, rollout
from getiaction.eval.statistics import aggregate

__all__ = [
    "Environments",
    "Episode",
    "aggregate",
    "evaluate_policy",
    "rollout",
    "run_episodes",
    "wilson_interval",
]
