"""The training job: its settings, where its run lives, and what Lightning is told."""
