"""TD-MPC patch: select actions with a camera of any name."""

from typing import Any

from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCTOLD
from lerobot.utils.constants import OBS_IMAGE
from torch import Tensor


class AnyCamera(TDMPCTOLD):
    """LeRobot's model, whose encoder looks for the camera under the dataset's name.

    Acting, LeRobot 0.6.1 hands the frame over as ``observation.image``, and fails if the dataset
    calls it otherwise. Training is not concerned: it hands over both.
    """

    def encode(self, obs: dict[str, Tensor]) -> Tensor:
        """Encode an observation into its latent representation (..., latent_dim)."""
        camera = next(iter(self.config.image_features), OBS_IMAGE)
        if camera not in obs and OBS_IMAGE in obs:
            obs = {**obs, camera: obs[OBS_IMAGE]}
        latent: Tensor = super().encode(obs)
        return latent


def accept_any_camera(network: Any) -> None:
    """Let LeRobot's ``TDMPCPolicy`` act with a camera of any name; its weights stay as they are."""
    network.model.__class__ = AnyCamera
