from pathlib import Path
from typing import Annotated, Any

import configuronic as cfn
import pytest

from positronic import cli
from positronic.cfg.policy import POLICY, placeholder, remote
from positronic.offboard.client import RemotePolicy, SessionOptions

seen: list[Any] = []
URL = "ws://desktop:8123"


@cfn.config(policy=placeholder)
def command(policy: Annotated[Any, POLICY]) -> None:
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


@pytest.mark.parametrize(
    ("given", "checkpoint"),
    [
        (URL, None),
        ("http://desktop:8123/", None),
        (f"{URL}/api/v1/session", None),
        (f"{URL}/api/v1/session/010000", "010000"),
    ],
)
def test_a_url_is_a_policy(given: str, checkpoint: str | None) -> None:
    assert cli.status(command, "command", [f"--policy={given}", "--policy.jpeg_quality=90"]) == 0
    policy = seen.pop()
    assert (policy.client.url, policy.checkpoint) == (URL, checkpoint)
    assert policy.client.options.jpeg_quality == 90


@pytest.mark.parametrize("below", ["", "checkpoints", "checkpoints/last/pretrained_model/"])
def test_a_directory_is_a_policy_in_this_process(tmp_path: Path, below: str) -> None:
    (tmp_path / "checkpoints/000200/pretrained_model").mkdir(parents=True)
    (tmp_path / "checkpoints/last").symlink_to("000200")
    config = POLICY.parse("policy", f"{tmp_path}/{below}")
    assert POLICY.name_of(config) == ".act_absolute"
    assert config.kwargs == {"checkpoints_dir": f"{tmp_path}/{below}"}


def test_help_says_how_to_see_the_flags_of_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(command, "command", ["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--policy=... One of: .act_absolute, .remote, ws://HOST:PORT" in said
    assert "`command --policy=.remote --help` shows the flags of that one" in said
    assert cli.status(command, "command", ["--policy=.remote", "--help"]) == 0
    assert "--policy.port=8000" in capsys.readouterr().out
