"""Inference session over a WebSocket: wire format, client and server.

Import what is needed from :mod:`positronic.offboard.client` (light) or
:mod:`positronic.offboard.serving.server` (Starlette).
"""

__all__: list[str] = []
