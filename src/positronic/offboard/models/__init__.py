"""Loaded checkpoints: what the server needs of one, and how many sessions share them."""
