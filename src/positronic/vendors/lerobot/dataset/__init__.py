"""LeRobot dataset on disk: its layout, its statistics, and their totals."""

__all__: list[str] = []
