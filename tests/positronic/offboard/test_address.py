import http.client

import pytest

from foundation.errors import UsageError
from positronic.offboard.address import Address
from positronic.offboard.client import InferenceClient, RemotePolicy


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("ws://robot:8000", "ws://robot:8000"),
        ("http://robot:8000/", "ws://robot:8000"),
        ("wss://robot", "wss://robot:443"),
        ("https://robot.example/serving/a/", "wss://robot.example:443/serving/a"),
        ("http://127.0.0.1", "ws://127.0.0.1:80"),
        ("ws://[::1]:8000", "ws://[::1]:8000"),
        ("WS://Robot:8000", "ws://robot:8000"),
    ],
)
def test_addresses_as_people_write_them(given: str, url: str) -> None:
    assert Address.parse(given).url == url
    assert InferenceClient(url=given).url == url
    assert RemotePolicy(url=given).client.url == url


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("robot:8000", "is not an address of a server; expected ws://HOST:PORT"),
        ("robot", "is not an address"),
        ("ftp://robot", "is not an address"),
        ("ws://", "is not an address"),
        ("ws://:8000", "is not an address"),
        ("ws://robot:eight", "is not an address"),
        ("ws://robot:70000", "is not an address"),
        ("ws://[::1:8000", "is not an address"),
        ("ws://me:secret@robot", "AUTH_TOKEN"),
        ("ws://robot:8000/?model=3", "after the path"),
        ("ws://ro bot:8000", "not a host name"),
    ],
)
def test_what_is_no_address_is_refused(given: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        InferenceClient(url=given)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_have_brackets(host: str) -> None:
    assert InferenceClient(host, 8000).url == "ws://[::1]:8000"


@pytest.mark.parametrize("host", ["", "ws://robot", "robot/x", "a b"])
def test_a_host_that_is_none_is_refused_and_says_how_to_give_a_url(host: str) -> None:
    with pytest.raises(UsageError, match=r"--policy\.url=ws://HOST:PORT"):
        InferenceClient(host)


def test_an_address_is_given_once() -> None:
    with pytest.raises(UsageError, match="give one or the other"):
        InferenceClient("robot", url="ws://other:8000")


def test_secure_addresses_are_asked_securely() -> None:
    plain, secure = Address("a", 80), Address("a", 443, secure=True)
    assert type(plain.http_connection(1)) is http.client.HTTPConnection
    assert type(secure.http_connection(1)) is http.client.HTTPSConnection
