"""Verification of LeRobot datasets: checks, repair of statistics, and a summary."""
