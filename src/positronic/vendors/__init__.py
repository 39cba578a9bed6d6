"""Rooms where Positronic meets what others train with: :mod:`positronic.vendors.lerobot`."""

__all__: list[str] = []
