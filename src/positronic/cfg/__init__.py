"""Named configurations for the command line, ``@positronic.cfg.MODULE.NAME`` or ``.NAME``."""

__all__: list[str] = []
