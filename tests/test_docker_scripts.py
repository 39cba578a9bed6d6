"""The small programs that images are built and started with, without an engine."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
IDENTITY = {
    f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


def printed(*words: object) -> str:
    return subprocess.run(
        [str(word) for word in words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one commit."""
    git(tmp_path, "init", "-q", "-b", "some/branch")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    return tmp_path


def git(root: Path, *words: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | IDENTITY
    env["GIT_CONFIG_GLOBAL"] = os.devnull
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_the_commit_is_read_without_git(repository: Path) -> None:
    def read(*known: str) -> str:
        # As in an image: only what .dockerignore lets in.
        seen = repository / "seen"
        shutil.rmtree(seen, ignore_errors=True)
        seen.mkdir()
        for name in ("HEAD", "packed-refs", "refs"):
            source = repository / ".git" / name
            if source.is_dir():
                shutil.copytree(source, seen / name)
            elif source.exists():
                shutil.copy(source, seen)
        return printed(DOCKER / "commit", seen, *known)

    commit = git(repository, "rev-parse", "HEAD")
    assert read() == commit
    assert read("") == commit
    assert read(f"{'3f' * 20}-dirty") == f"{'3f' * 20}-dirty"
    git(repository, "pack-refs", "--all")
    assert not (repository / ".git/refs/heads/some/branch").exists()
    assert read() == commit
    git(repository, "commit", "-q", "--allow-empty", "-m", "two")
    newer = git(repository, "rev-parse", "HEAD")
    assert read() == newer  # and not the packed one
    git(repository, "checkout", "-q", "--detach", commit)
    assert read() == commit
    git(repository, "checkout", "-q", "--orphan", "none-yet")
    assert read() == ""


def test_no_repository_is_no_commit(tmp_path: Path) -> None:
    assert printed(DOCKER / "commit", tmp_path / ".git") == ""
    assert printed(DOCKER / "commit", tmp_path / ".git", "aa") == "aa"
    (tmp_path / ".git").write_text("gitdir: /elsewhere\n")
    assert printed(DOCKER / "commit", tmp_path / ".git") == ""


def requirements(pyproject: str, tmp_path: Path) -> str:
    file = tmp_path / "pyproject.toml"
    file.write_text(pyproject)
    return printed(sys.executable, DOCKER / "requirements.py", file)


def test_dependencies_hang_on_what_is_installed_alone(tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    document: Any = tomllib.loads(text)
    before = requirements(text, tmp_path)
    kept: Any = tomllib.loads(before)
    assert kept["project"]["dependencies"] == document["project"]["dependencies"]
    for extra in ("sim", "train", "server", "gyms", "export", "data", "s3"):
        expected = document["project"]["optional-dependencies"][extra]
        assert kept["project"]["optional-dependencies"][extra] == expected
    for key in ("override-dependencies", "constraint-dependencies"):
        assert kept["tool"]["uv"][key] == document["tool"]["uv"][key]

    other = text
    for old, new in (
        (f'version = "{document["project"]["version"]}"', 'version = "99.0.1"'),
        (f"line-length = {document['tool']['ruff']['line-length']}", "line-length = 99"),
    ):
        assert other.count(old) == 1
        other = other.replace(old, new)
    assert requirements(other, tmp_path) == before
    pin = document["tool"]["uv"]["constraint-dependencies"][0]
    assert requirements(text.replace(pin, f"{pin}.9"), tmp_path) != before


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv here")
@pytest.mark.skipif(Path("/caller").exists(), reason="there is a /caller here")
def test_root_becomes_whose_the_folders_are(tmp_path: Path) -> None:
    def runs_as(home: Path) -> str:
        words = ["env", f"HOME={home}", DOCKER / "entrypoint", "sh", "-c", "id -u; id -g"]
        return ":".join(printed(*words).split())

    for name in ("datasets", "checkpoints", ".cache"):
        (tmp_path / name).mkdir(parents=True)
    os.chown(tmp_path / "checkpoints", 4321, 4322)
    (tmp_path / ".cache/something").touch()
    assert runs_as(tmp_path) == "4321:4322"
    # One that Docker has just made is given, one in which something lies is root's on purpose.
    assert (tmp_path / "datasets").stat().st_uid == 4321
    assert (tmp_path / ".cache").stat().st_uid == 0
