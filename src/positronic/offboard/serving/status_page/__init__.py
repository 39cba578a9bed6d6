"""Files of the status page, which :mod:`positronic.offboard.serving.pages` serves."""

__all__: list[str] = []
