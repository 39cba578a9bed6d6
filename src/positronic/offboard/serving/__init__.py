"""Inference server: sessions over connections, their limits, and endpoints for operators."""
