"""LeRobot integration: convert datasets, train policies and serve them, one command each."""

__all__: list[str] = []
