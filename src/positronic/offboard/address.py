"""Server address: host, port, TLS and path prefix, parsed from a URL."""

import http.client
from dataclasses import dataclass
from urllib.parse import urlsplit

from foundation.errors import UsageError

_DEFAULT_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


@dataclass(frozen=True)
class Address:
    """Host, port and, behind a proxy, the path in front of ``/api``."""

    host: str
    port: int
    secure: bool = False
    path: str = ""

    def __post_init__(self) -> None:
        """Validate host and port."""
        if not 0 < self.port < 65536:
            raise UsageError(f"--port={self.port} is not a TCP port; expected 1 to 65535")
        if not self.host or any(c in self.host for c in " /?#@[]"):
            raise UsageError(
                f"{self.host!r} is not a host name or address; give an address with a scheme as"
                " --policy.url=ws://HOST:PORT"
            )

    @classmethod
    def of(cls, host: str, port: int) -> "Address":
        """Return the address of a host, with or without brackets if IPv6, and a port."""
        host = str(host)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        return cls(host, int(port))

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Parse ``ws://``, ``wss://``, ``http://`` or ``https://`` ``HOST[:PORT][/PATH]``.

        Raises:
            UsageError: It is not of that form.
        """
        expected = "expected ws://HOST:PORT, or wss://, http:// or https://"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(
                f"{url!r} is not an address of a server ({error}); {expected}"
            ) from error
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise UsageError(f"{url!r} is not an address of a server; {expected}")
        if parts.username or parts.password:
            raise UsageError("no user or password in the address: give AUTH_TOKEN a token instead")
        if parts.query or parts.fragment:
            raise UsageError(f"{url!r} has something after the path; {expected}")
        if port is None:
            port = _DEFAULT_PORTS[parts.scheme]
        secure = parts.scheme in ("wss", "https")
        return cls(parts.hostname, port, secure, parts.path.rstrip("/"))

    @property
    def url(self) -> str:
        """``ws://host:port/path``, or ``wss``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.secure else 'ws'}://{host}:{self.port}{self.path}"

    def http_connection(self, timeout: float) -> http.client.HTTPConnection:
        """Return an HTTP connection that is not opened yet."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout)
