"""Access control of the server: the token, or this machine alone without one."""

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
    """Return the token of the environment; None where there is none.

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
    """Whether the environment says ``--insecure``, as a container's does whose ports are mapped.

    Raises:
        UsageError: It says something else.
    """
    value = environ.get(INSECURE_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{INSECURE_VARIABLE}={value} is neither 1, which lets others in, nor 0")
    return value == "1"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach ``address``, which is one of a socket and no name."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def require_token(address: str, host: str, token: str | None, insecure: bool) -> None:
    """Refuse to let everybody in by mistake.

    Args:
        address: Where the server listens, as a socket has it.
        host: The same as the operator wrote it.
        token: What clients have to know.
        insecure: The operator wants it so.

    Raises:
        UsageError: Other machines could connect, and need not know anything.
    """
    if token is None and not insecure and not is_loopback(address):
        raise UsageError(
            f"--host={host} lets other machines connect without a token; {_MAKE_ONE} and give it"
            " to the clients, or leave --host away, or say --insecure if the network keeps others"
            " out"
        )


def authorised(header: str | None, token: str, scheme: str) -> bool:
    """Whether an ``Authorization`` header holds the token; takes the same time if it does not."""
    given, _, secret = (header or "").partition(" ")
    same = hmac.compare_digest(secret.strip().encode(), token.encode())
    return same and given.lower() == scheme.lower()
