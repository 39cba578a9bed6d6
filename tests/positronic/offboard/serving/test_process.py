import contextlib

import pytest

from positronic.errors import SessionError
from positronic.offboard.serving.process import bind, resolve


def test_a_port_in_use_is_named() -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(SessionError, match=f"port {taken} of 127.0.0.1 is in use"):
            bind("127.0.0.1", taken)


@pytest.mark.parametrize(("host", "port"), [("256.1.1.1", 0), ("192.0.2.1", 0), ("", 70000)])
def test_an_address_that_is_not_ours_is_named(host: str, port: int) -> None:
    with pytest.raises(SessionError, match="cannot listen on"):
        bind(host, port)


@pytest.mark.parametrize("port", [-1, 65536, 99999, 1 << 40])
def test_a_port_that_is_none_is_not_taken_for_another(port: int) -> None:
    """The system takes the rest after 65536."""
    with pytest.raises(SessionError, match="ports are 0 to 65535"):
        bind("127.0.0.1", port)


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "256.1.1.1", "", "a" * 300, "é" * 80 + "."]
)
def test_a_host_that_is_unknown_is_named(host: str) -> None:
    with pytest.raises(SessionError, match="cannot listen on .*; see --host"):
        resolve(host)


def test_it_listens_where_it_said() -> None:
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        with contextlib.closing(bind(host, 0)) as listener:
            assert listener.getsockname()[0] == resolve(host)
