"""Command line of configs: flags, help and exit statuses for every program of this package."""

from positronic.cli.runner import TRACEBACK_VARIABLE, run, status

__all__ = ["TRACEBACK_VARIABLE", "run", "status"]
