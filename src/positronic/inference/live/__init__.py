"""Live view: a window with the camera images of a running rollout."""
