"""Files of the page at ``/docs``, which :mod:`positronic.offboard.serving.pages` serves."""

__all__: list[str] = []
