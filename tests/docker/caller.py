"""Somebody with a home and a checkout who types ``docker compose`` commands, and is not root."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOCKET = Path("/var/run/docker.sock")
# Of nobody else on the machine; only root may become somebody else.
UID = 4321 if os.getuid() == 0 else os.getuid()
# Beside what somebody runs on this machine, not instead; another word keeps two test runs apart.
TAG = os.environ.get("POSITRONIC_DOCKER_TESTS", "test")
PROJECT = f"positronic-{TAG}"


@dataclass(frozen=True)
class Done:
    """A command that ended: its status and all that it printed, both streams together."""

    status: int
    printed: str


@dataclass
class Caller:
    """The user ``uid`` with an empty ``home``, in which ``checkout`` is a copy of this checkout."""

    home: Path
    uid: int = UID
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.home / "positronic-lightning"

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "IMAGE_TAG": TAG,
            "COMPOSE_PROJECT_NAME": PROJECT,
            **self.variables,
        }

    def words(self, command: str, folder: str = "docker") -> list[str]:
        """The program and arguments that run a shell command line as this user."""
        script = f"cd {self.checkout}/{folder}\n{command}"
        shell = ["bash", "-euo", "pipefail", "-c", script]
        if os.getuid() != 0:
            return shell
        group = SOCKET.stat().st_gid
        ids = [f"--reuid={self.uid}", f"--regid={self.uid}", f"--groups={self.uid},{group}"]
        return ["setpriv", *ids, "--", *shell]

    def run(
        self, command: str, *, timeout: float = 600, folder: str = "docker", **more: str
    ) -> Done:
        """Run a shell command line, with ``more`` variables; its output goes to a pipe."""
        done = subprocess.run(
            self.words(command, folder),
            env=self.environment() | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout)

    def ok(self, command: str, *, timeout: float = 600, folder: str = "docker", **more: str) -> str:
        """Run a command line that has to succeed; return what it printed."""
        done = self.run(command, timeout=timeout, folder=folder, **more)
        assert done.status == 0, f"{command}\nended with {done.status}:\n{done.printed[-4000:]}"
        return done.printed

    def start(self, command: str, log: Path, **more: str) -> subprocess.Popen[bytes]:
        """Start a command line beside the test; what it prints goes to ``log``."""
        with log.open("wb") as out:
            return subprocess.Popen(
                self.words(command),
                env=self.environment() | more,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def own(self, path: Path) -> None:
        """Make a path in the home theirs, and all below it; tests put it there as root."""
        if os.getuid() == 0:
            for each in (path, *path.rglob("*")):
                os.chown(each, self.uid, self.uid, follow_symlinks=False)

    def revision(self) -> str:
        """The checkout's commit as `make docker-build` finds it, with -dirty if files differ."""
        describe = "git describe --always --dirty --abbrev=40 --exclude '*'"
        return self.ok(describe, folder=".").strip()

    def strangers(self) -> list[Path]:
        """What lies in the home and belongs to somebody else."""
        return [path for path in self.home.rglob("*") if path.lstat().st_uid != self.uid]

    def containers(self, service: str, *, every: bool = False) -> list[str]:
        """Ids of the containers of a service that run now, or of all there are."""
        filters = [f"label=com.docker.compose.project={PROJECT}"]
        filters += [f"label=com.docker.compose.service={service}"]
        options = [word for each in filters for word in ("--filter", each)]
        listed = docker("ps", "--quiet", "--no-trunc", *options, *(["--all"] if every else []))
        return listed.split()


def docker(*words: str) -> str:
    """What a docker command prints; it has to succeed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout


def copy_checkout(to: Path) -> None:
    """Copy what git knows of this checkout, changes included, and its commits."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # one that was deleted is still listed
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    # No copy of .git, which in a worktree is a file; nor links into it, whose owner would change.
    clone = ["git", "clone", "--quiet", "--bare", "--no-hardlinks", str(ROOT), str(to / ".git")]
    subprocess.run(clone, check=True)
    for words in (["config", "core.bare", "false"], ["reset", "--quiet"]):
        subprocess.run(["git", "-C", str(to), *words], check=True)


@contextmanager
def serving(
    caller: Caller, command: str, log: Path, service: str = "lerobot-server", **more: str
) -> Iterator[str]:
    """Run a server's command line until it is healthy, and ``docker stop`` it in the end.

    Yields the container's id. The server has to end with status 0.
    """
    process = caller.start(command, log, **more)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            running = caller.containers(service)
            if running and health(running[0]) == "healthy":
                break
            time.sleep(0.2)
        else:
            raise AssertionError(f"not healthy in time:\n{log.read_text()}")
        yield running[0]
        docker("stop", running[0])
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for left in caller.containers(service, every=True):
            docker("rm", "--force", "--volumes", left)


def health(container: str) -> str:
    """What Docker thinks of a container: starting, healthy, unhealthy."""
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip()
