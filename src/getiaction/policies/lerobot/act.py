"""Action Chunking Transformer (Zhao et al. 2023, https://huggingface.co/papers/2304.13705)."""

from typing import Any

from getiaction.policies.lerobot.universal import LeRobotPolicy


class ACT(LeRobotPolicy):
    """LeRobot's ACT under Lightning; takes the fields of LeRobot's ``ACTConfig`` as keywords."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("act", **kwargs)
