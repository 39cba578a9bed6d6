"""Program ``positronic-import``: a subcommand for each kind of recording."""

from typing import NoReturn


def main() -> NoReturn:
    """Run ``positronic-import``."""
    from positronic import cli
    from positronic.importers.robomimic import robomimic
    from positronic.importers.sample import robomimic_sample

    cli.run({"robomimic": robomimic, "robomimic-sample": robomimic_sample}, "positronic-import")
