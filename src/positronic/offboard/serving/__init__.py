"""The server: sessions over connections, their limits, and what operators need."""
