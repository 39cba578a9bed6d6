"""LeRobot's policies under Lightning: data, policies, training, rollouts and export.

Exports its error; everything else is in its packages: :mod:`getiaction.data`,
:mod:`getiaction.policies.lerobot`, :mod:`getiaction.train`, :mod:`getiaction.eval`,
:mod:`getiaction.gyms`, :mod:`getiaction.export`, :mod:`getiaction.trainers`.
"""

from getiaction.errors import GetiactionError

__all__ = ["GetiactionError"]
