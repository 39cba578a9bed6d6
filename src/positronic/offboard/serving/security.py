"""Access control of the server: a token, or loopback only without one."""

import hmac
import ipaddress
from collections.abc import Mapping

from foundation.errors import UsageError

TOKEN_VARIABLE, INSECURE_VARIABLE = "AUTH_TOKEN", "POSITRONIC_INSECURE"
_MAKE_ONE = (
    "make one with"
    ' `export AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_urlsafe())")`'
)


def read_token(environ: Mapping[str, str]) -> str | None:
    """Return the token of the environment; None if there is none.

    Raises:
        UsageError: It is empty, or could not be sent in a header.
    """
    token = environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if not token.strip():
        raise UsageError(
            f"{TOKEN_VARIABLE} is set but empty, which would let everybody in; {_MAKE_ONE}, or"
            " unset it"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{TOKEN_VARIABLE} holds a space, a line break or a special character, which no"
            f" header can carry; {_MAKE_ONE}"
        )
    return token


def is_insecure(environ: Mapping[str, str]) -> bool:
    """Return whether the environment says ``--insecure``, as in containers with mapped ports.

    Raises:
        UsageError: The variable has another value than 0 or 1.
    """
    value = environ.get(INSECURE_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{INSECURE_VARIABLE}={value} is neither 1, which lets others in, nor 0")
    return value == "1"


def is_loopback(address: str) -> bool:
    """Return whether ``address``, an IP address, is reachable from this machine only."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def require_token(address: str, host: str, token: str | None, insecure: bool) -> None:
    """Refuse to listen for other machines without a token by mistake.

    Args:
        address: IP address on which the server listens.
        host: The same as given by the operator.
        token: Token that clients must send.
        insecure: Whether the operator allows it.

    Raises:
        UsageError: Other machines could connect without a token.
    """
    if token is None and not insecure and not is_loopback(address):
        raise UsageError(
            f"--host={host} lets other machines connect without a token; {_MAKE_ONE} and give it"
            " to the clients, or leave --host away, or say --insecure if the network keeps others"
            " out"
        )


def authorised(header: str | None, token: str, scheme: str) -> bool:
    """Return whether an ``Authorization`` header holds the token, in constant time."""
    given, _, secret = (header or "").partition(" ")
    same = hmac.compare_digest(secret.strip().encode(), token.encode())
    return same and given.lower() == scheme.lower()
