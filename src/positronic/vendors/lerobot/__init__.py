"""LeRobot: its datasets converted, its policies trained and served, by one command each."""

__all__: list[str] = []
