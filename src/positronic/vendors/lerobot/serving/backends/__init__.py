"""Inference backends of a checkpoint: LeRobot's policy in torch, or an export of it."""

__all__: list[str] = []
