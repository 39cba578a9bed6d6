"""Verification of LeRobot datasets: checks, repair of statistics, and a summary."""

__all__: list[str] = []
