"""Gyms: environments for rollouts of policies, with LeRobot's observations."""

from getiaction.gyms.aloha import AlohaGym
from getiaction.gyms.base import Gym
from getiaction.gyms.pusht import PushTGym
from getiaction.gyms.registered import GymnasiumGym
from getiaction.gyms.resolve import as_gym

__all__ = ["AlohaGym", "Gym", "GymnasiumGym", "PushTGym", "as_gym"]
