"""Importers of other projects' recordings as raw episodes: ``positronic-import``."""

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run ``positronic-import``."""
    from positronic import cli
    from positronic.importers.robomimic import robomimic
    from positronic.importers.sample import robomimic_sample

    cli.run({"robomimic": robomimic, "robomimic-sample": robomimic_sample}, "positronic-import")
