"""Live view: a window with the camera images of a running rollout."""

__all__: list[str] = []
