"""LeRobot's policies as Lightning modules."""

from getiaction.policies.lerobot.act import ACT
from getiaction.policies.lerobot.configs import policy_config
from getiaction.policies.lerobot.universal import LeRobotPolicy

__all__ = ["ACT", "LeRobotPolicy", "policy_config"]
