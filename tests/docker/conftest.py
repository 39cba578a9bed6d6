"""A Docker engine, the images, and somebody who uses them."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.caller import SOCKET, TAG, Caller, copy_checkout, docker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def engine() -> None:
    """Docker with Compose; without it the test is skipped."""
    if not SOCKET.exists() or shutil.which("docker") is None:
        pytest.skip("needs a Docker engine")
    for words in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"needs a Docker engine with Compose: {done.stderr.strip()}")


def new_caller(home: Path) -> Caller:
    """Somebody who has just cloned the project into an otherwise empty home."""
    caller = Caller(home)
    home.chmod(0o755)
    copy_checkout(caller.checkout)
    plugins = Path.home() / ".docker/cli-plugins"
    if plugins.is_dir():
        shutil.copytree(plugins, home / ".docker/cli-plugins")
    caller.own(home)
    return caller


@pytest.fixture(scope="module")
def caller(engine: None) -> Iterator[Caller]:
    """Somebody for all tests of a module, whose commands build the images when there are none."""
    # Not below pytest's folder, which others than its user cannot enter, nor in /tmp, of which a
    # container has its own.
    with tempfile.TemporaryDirectory(prefix="positronic-docker-", dir="/var/tmp") as home:
        caller = new_caller(Path(home))
        yield caller
        caller.run("docker compose --profile '*' down --volumes --timeout=5")


@pytest.fixture(scope="module")
def images(caller: Caller) -> None:
    """All images, built by ``make docker-build``; layers are the engine's cache's."""
    caller.ok("make docker-build", folder=".", timeout=1800)


@pytest.fixture(scope="session", autouse=True)
def no_trace() -> Iterator[None]:
    """The tests' images are removed in the end; what they were built from stays cached."""
    yield
    if SOCKET.exists() and shutil.which("docker"):
        # By name: somebody's own image of the same content has the same id.
        names = ["--format={{.Repository}}:{{.Tag}}"]
        names += [f"--filter=reference=*:{TAG}{more}" for more in ("", "-*")]
        listed = subprocess.run(
            ["docker", "image", "ls", *names], capture_output=True, text=True, check=False
        )
        for image in set(listed.stdout.split()):
            docker("image", "rm", "--force", image)
