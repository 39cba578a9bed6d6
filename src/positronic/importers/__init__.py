"""Importers of other projects' recordings as raw episodes: ``positronic-import``."""

from positronic.importers.command import main

__all__ = ["main"]
