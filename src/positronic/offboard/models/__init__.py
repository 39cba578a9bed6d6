"""Model store of the server: loaded checkpoints that sessions share, with batched inference."""
