"""Whose the files are, as whom the program runs, and where a path leads."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.caller import TAG, Caller, docker
from tests.docker.conftest import new_caller

RECORD = "positronic-data-collection scripted --cameras=none --episodes=1"
# One line each: what the program inside is, and what it may do.
PROBE = """
id -u; id -g; id -G; echo $HOME
grep CapEff /proc/self/status
for place in /caller /caller/.aws $HOME/.aws/key $HOME/.config/positronic/x $HOME/x /x; do
    touch $place/x 2>/dev/null || touch $place 2>/dev/null && echo wrote $place
done
true
"""


@pytest.fixture
def newcomer(caller: Caller, images: None, tmp_path: Path) -> Iterator[Caller]:
    """Somebody with an empty home, and the images of the others."""
    home = Path(f"{caller.home}-newcomer")
    home.mkdir()
    yield new_caller(home)
    subprocess.run(["rm", "-rf", str(home)], check=True)


def test_in_an_empty_home(newcomer: Caller) -> None:
    printed = newcomer.ok(f"docker compose run --rm -T positronic sh <<'END'\n{PROBE}END")
    me = str(newcomer.uid)
    # Before it, Compose may tell of a network.
    told = [me, me, me, str(newcomer.home), "CapEff:\t" + 16 * "0"]
    assert printed.splitlines()[-len(told) :] == told
    for folder in ("datasets", "checkpoints", ".cache", ".aws", ".config/positronic"):
        assert (newcomer.home / folder).is_dir()
    # They lie in the mounted folders now, and so do the folders above them.
    assert newcomer.strangers() == []


def test_paths_mean_the_same_inside_and_outside(caller: Caller, images: None) -> None:
    places = ("~/datasets/tilde", f"{caller.home}/datasets/absolute", "relative")
    commands = "; ".join(f"{RECORD} --output_dir={place}" for place in places)
    printed = caller.ok(f"docker compose run --rm positronic sh -euc '{commands}'")
    found = [caller.home / "datasets" / name for name in ("tilde", "absolute")]
    for path in (*found, caller.checkout / "docker/relative"):
        assert (path / "000000000000/000000000000/static.json").is_file(), printed
    assert caller.strangers() == []
    # What lands beside the Compose file is none of the project's.
    assert caller.run("git check-ignore relative").status == 0


def test_what_would_vanish_is_refused(caller: Caller, images: None) -> None:
    away = f"{caller.home}/away"
    run = f"docker compose run --rm %s {RECORD} --output_dir={away}/new"
    refused = caller.run(run % "")
    assert refused.status == 1
    assert len(refused.printed.splitlines()) == 1
    assert f"error: {away}/new is on a read-only file system" in refused.printed
    assert f"-v ~/away:{away}" in refused.printed

    Path(away).mkdir()
    caller.own(Path(away))
    caller.ok(run % f"--volume={away}:{away}")
    assert (Path(away) / "new/000000000000").is_dir()
    assert caller.strangers() == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders to others")
def test_folders_of_others(newcomer: Caller) -> None:
    """Root's on purpose stay root's; whose the checkout is does not matter beside one's own."""
    datasets = newcomer.home / "datasets"
    (datasets / "shared").mkdir(parents=True)
    refused = newcomer.run(f"docker compose run --rm {RECORD} --output_dir=~/datasets/new")
    assert refused.status == 1
    assert len(refused.printed.splitlines()) == 1
    assert "positronic-data-collection: error: " in refused.printed
    assert str(datasets) in refused.printed
    assert datasets.stat().st_uid == 0
    assert sorted(path.name for path in datasets.iterdir()) == ["shared"]

    newcomer.own(datasets)
    Caller(newcomer.home, 7654).own(newcomer.checkout)
    newcomer.ok(f"docker compose run --rm {RECORD} --output_dir=~/datasets/new")
    assert (datasets / "new").stat().st_uid == newcomer.uid


def test_a_user_that_docker_is_told(caller: Caller, images: None) -> None:
    told = caller.ok("docker compose run --rm --user=1234:2345 positronic id -u")
    assert told == "1234\n"
    image = f"positronic-lightning:{TAG}"
    assert docker("run", "--rm", "--user=1234", image, "id", "-u") == "1234\n"
    # Nobody's folders, nobody's files: not as root either.
    assert docker("run", "--rm", image, "id", "-u") == "1000\n"
    assert docker("run", "--rm", f"positronic-lightning-client:{TAG}", "id", "-u") == "1000\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be root")
def test_root(newcomer: Caller) -> None:
    root = Caller(newcomer.home, 0)
    root.own(root.home)
    root.ok(f"docker compose run --rm {RECORD} --output_dir=~/datasets/new")
    assert (root.home / "datasets/new/000000000000").is_dir()
    assert root.strangers() == []
    # With sudo: root's home, and a checkout that is somebody else's.
    mount = f"--volume={newcomer.checkout}:/work"
    newcomer.own(newcomer.checkout)
    image = f"positronic-lightning:{TAG}"
    sudo = ("--user=root", "--env=HOME=/root", mount, image, "id", "-u")
    assert docker("run", "--rm", *sudo) == "0\n"
