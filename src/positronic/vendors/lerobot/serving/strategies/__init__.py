"""Inference strategies: how LeRobot's kinds of policies act for many independent sessions."""

__all__: list[str] = []
