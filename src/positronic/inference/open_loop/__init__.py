"""Served actions beside recorded ones, on the observations of recorded episodes."""
