"""Inference strategies, by which LeRobot's policies act for many independent sessions."""

__all__: list[str] = []
