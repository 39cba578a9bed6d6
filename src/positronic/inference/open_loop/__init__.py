"""Open-loop evaluation: a policy's actions beside recorded ones, on recorded observations."""

__all__: list[str] = []
