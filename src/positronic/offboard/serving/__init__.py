"""Inference server: sessions over connections, their limits, and endpoints for operators."""

__all__: list[str] = []
