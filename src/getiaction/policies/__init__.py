"""Policies under Lightning; :mod:`getiaction.policies.lerobot` exports those of LeRobot."""

__all__: list[str] = []
