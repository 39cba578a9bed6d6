"""LeRobot dataset on disk: its layout, its statistics, and the totals of what is in it."""

__all__: list[str] = []
