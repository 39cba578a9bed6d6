from typing import Any

import configuronic as cfn
import pytest

from positronic import cli
from positronic.cfg.policy import placeholder, remote
from positronic.offboard.client import RemotePolicy, SessionOptions

seen: list[Any] = []


@cfn.config(policy=placeholder)
def command(policy: Any) -> None:
    """Take a policy."""
    seen.append(policy)


def test_no_policy_chosen_says_how_to_choose_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(command, "command", []) == 2
    error = capsys.readouterr().err
    assert "choose a policy: --policy=.remote --policy.host=HOST" in error


def test_the_remote_policy_is_chosen_by_its_short_name() -> None:
    flags = ["--policy=.remote", "--policy.host=desktop", "--policy.port=8123"]
    assert cli.status(command, "command", [*flags, "--policy.checkpoint=010000"]) == 0
    policy = seen.pop()
    assert isinstance(policy, RemotePolicy)
    assert policy.client.url == "ws://desktop:8123"
    assert policy.checkpoint == "010000"


def test_a_url_and_the_other_flags_reach_the_client() -> None:
    flags = ["--policy=.remote", "--policy.url=wss://desktop/robots", "--policy.jpeg_quality=90"]
    flags += ["--policy.connect_timeout=1", "--policy.request_timeout=2"]
    flags += ["--policy.reconnect_timeout=3", "--policy.allow_history_loss"]
    assert cli.status(command, "command", flags) == 0
    client = seen.pop().client
    assert client.url == "wss://desktop:443/robots"
    assert client.options == SessionOptions(1, 2, 3, allow_history_loss=True, jpeg_quality=90)


def test_an_address_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(command, "command", ["--policy=.remote", "--policy.url=desktop:8000"]) == 2
    assert "expected ws://HOST:PORT" in capsys.readouterr().err


def test_it_defaults_to_this_machine_and_the_servers_default_port() -> None:
    policy: Any = remote.instantiate()
    assert policy.client.url == "ws://localhost:8000"
    assert policy.checkpoint is None
