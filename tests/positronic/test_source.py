"""Which commit runs, as the package itself says it, wherever it was put."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import positronic

PACKAGE = Path(positronic.__file__).parent
PROGRAM = "import positronic.source as s; print(s.__file__, s.commit())"
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    **{f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
}

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")


def placed(parent: Path) -> Path:
    """Put what answers below ``parent``, as in a checkout's ``src`` or as it is installed."""
    package = parent / "positronic"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "source.py"):
        shutil.copy(PACKAGE / name, package)
    return package


def said(package: Path, **environment: str) -> str:
    """What a process that imports this package is told; it writes nothing else."""
    path = os.fspath(package.parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**ENVIRONMENT, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    file, answer = done.stdout.split()
    assert file == str(package / "source.py")
    return answer


def git(directory: Path, *words: str) -> str:
    command = ["git", "-C", str(directory), *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(root: Path) -> str:
    """Make ``root`` a repository with all that is in it; its commit."""
    git(root, "init", "-q")
    git(root, "add", "-A", "-f")
    git(root, "commit", "-q", "-m", "all")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of a checkout of this project, of which git knows nothing yet."""
    root = tmp_path / "somebody" / "project"
    placed(root / "src")
    (root / "pyproject.toml").write_text('[project]\nname = "positronic-lightning"\n')
    return root


def test_an_image_is_told_by_its_file(tmp_path: Path) -> None:
    package = placed(tmp_path / "lib/python3.12/site-packages")
    assert said(package) == "None"
    (package / "COMMIT").write_text(f"{'3f' * 20}-dirty\n")
    assert said(package) == f"{'3f' * 20}-dirty"
    assert said(package, PATH="") == f"{'3f' * 20}-dirty"


@needs_git
def test_a_checkout_is_asked(project: Path, tmp_path: Path) -> None:
    package = project / "src/positronic"
    assert said(package) == "None"
    git(project, "init", "-q")
    assert said(package) == "None"  # no commit as yet
    commit = committed(project)
    assert len(commit) == 40
    (project / "notes.txt").write_text("of nobody's concern")
    os.utime(package / "source.py", (0, 0))  # touched, and the same
    assert said(package) == commit
    assert said(package, PATH="") == "None"
    assert said(package, GIT_TEST_ASSUME_DIFFERENT_OWNER="1") == "None"
    (project / "pyproject.toml").write_text('name = "positronic-lightning"\n')
    assert said(package) == f"{commit}-dirty"
    git(project, "worktree", "add", "-q", str(tmp_path / "tree"))
    assert said(tmp_path / "tree/src/positronic") == commit
    (package / "COMMIT").write_text("3f" * 20)
    assert said(package) == "3f" * 20


@needs_git
def test_nobody_elses_commit_is_said(project: Path, tmp_path: Path) -> None:
    package = project / "src/positronic"
    another = tmp_path / "another"
    installed = placed(another / ".venv/lib/python3.12/site-packages")
    copied = placed(another / "src")
    (another / "pyproject.toml").write_text('[project]\nname = "another"\n')
    other = committed(another)
    assert said(installed) == "None"
    assert said(copied) == "None"
    committed(project.parent)
    assert said(package) == "None"  # unpacked, below somebody's repository
    (project / ".git").mkdir()
    assert said(package) == "None"  # of which git would say nothing, and go up
    (project / ".git").rmdir()
    commit = committed(project)
    git_dir = str(another / ".git")
    assert said(package, GIT_DIR=git_dir, GIT_WORK_TREE=str(another)) == commit != other
