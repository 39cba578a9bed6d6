"""``getiaction fit|validate|test|predict``: Lightning's command line over one YAML file."""

from getiaction.cli.program import main

__all__ = ["main"]
