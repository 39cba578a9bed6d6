"""Serving of LeRobot checkpoints: their files, policies, inference strategies and backends."""

__all__: list[str] = []
