"""Training job: its settings, its run directory, its checkpoints and its Lightning trainer."""

__all__: list[str] = []
