"""Backends that compute a checkpoint's actions: LeRobot's policy in torch, or an export of it."""

__all__: list[str] = []
