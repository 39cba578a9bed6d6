"""Inference session over a WebSocket: wire format, client and server.

Import from :mod:`positronic.offboard.client` (light) or :mod:`positronic.offboard.serving.server`
(Starlette).
"""

__all__: list[str] = []
