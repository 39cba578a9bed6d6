"""Paired comparison of policies on the same seeds, with an exact test."""

__all__: list[str] = []
