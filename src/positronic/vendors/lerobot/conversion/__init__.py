"""Conversion of raw episodes to a LeRobot dataset: encode each, store, assemble, publish."""

__all__: list[str] = []
