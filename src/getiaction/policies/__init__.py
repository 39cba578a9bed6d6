"""Policies under Lightning; :mod:`getiaction.policies.lerobot` offers those of LeRobot."""

__all__: list[str] = []
