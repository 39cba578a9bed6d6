"""Training job: its settings, its run directory, its checkpoints and its Lightning trainer."""
