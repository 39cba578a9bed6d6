"""What is in the images, what is not, and how they come about."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.docker.caller import TAG, Caller, docker

FULL, CLIENT = f"positronic-lightning:{TAG}", f"positronic-lightning-client:{TAG}"
STORE = f"positronic-lightning-object-store:{TAG}"
# What a test builds besides, under a tag of its own.
OTHER = f"{TAG}-other"
SECRET = "of-nobodys-concern-3f1c"
REVISION, VERSION = "org.opencontainers.image.revision", "org.opencontainers.image.version"


@pytest.fixture(scope="module", autouse=True)
def secrets(caller: Caller) -> None:
    """What lies about in a home, a checkout and a shell, before anything is built."""
    for name in (
        ".aws/credentials",
        "positronic-lightning/docker/.env.wandb",
        "positronic-lightning/.env",
        "positronic-lightning/.git/config.worktree",
        "positronic-lightning/notes.txt",
        "positronic-lightning/src/.env",
        "positronic-lightning/src/positronic/.env.wandb",
        "positronic-lightning/src/positronic/notes.txt",
    ):
        path = caller.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"WANDB_API_KEY={SECRET}\n")
        caller.own(path.parent if name.startswith(".aws") else path)
    for variable in ("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "HF_TOKEN", "AUTH_TOKEN"):
        caller.variables[variable] = SECRET


def inspect(image: str) -> Any:
    return json.loads(docker("image", "inspect", image))[0]


def run(image: str, *words: str) -> str:
    """What a program prints in a new container of an image, as the image's user."""
    return docker("run", "--rm", "--network=none", "--entrypoint", words[0], image, *words[1:])


def python(image: str, program: str) -> Any:
    """What a Python program prints, which is JSON."""
    return json.loads(run(image, "python", "-c", f"import json, sys\n{program}"))


def test_labels_tell_commit_and_version(caller: Caller, images: None) -> None:
    text = (caller.checkout / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"', text, re.MULTILINE)
    assert version
    says = "import positronic.source as s; print(json.dumps(s.commit()))"
    for image in (FULL, CLIENT):
        labels = inspect(image)["Config"]["Labels"]
        assert labels[REVISION] == caller.revision()
        assert labels[VERSION] == version[1]
        assert python(image, says) == caller.revision()
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", caller.revision())


def test_nobody_is_root_unasked(images: None) -> None:
    for image in (FULL, CLIENT, STORE):
        assert run(image, "id", "--user").strip() == "1000"


def test_the_client_is_small(images: None) -> None:
    # 200 MB of it are the stand-in base image, 8 pydantic, which reads what servers say.
    assert inspect(CLIENT)["Size"] < 410_000_000
    program = """
import importlib.util, positronic.offboard.client
names = ["torch", "lerobot", "lightning", "mujoco", "gymnasium", "boto3", "av"]
print(json.dumps([name for name in names if importlib.util.find_spec(name)]))
"""
    assert python(CLIENT, program) == []


def test_what_is_imported_is_compiled(images: None) -> None:
    """Nobody can write beside the modules of a running container."""
    imports = {
        CLIENT: "positronic.codec, positronic.offboard.client, positronic.policy",
        FULL: "positronic.vendors.lerobot.training.run, positronic.vendors.lerobot.server,"
        " positronic.vendors.lerobot.convert, positronic.inference.command, positronic.simulator",
    }
    for image, modules in imports.items():
        # Python tells of each module whether it found it compiled or had to compile it.
        command = ["docker", "run", "--rm", "--network=none", "--entrypoint=python", image]
        done = subprocess.run(
            [*command, "-v", "-c", f"import {modules}"], capture_output=True, text=True, check=True
        )
        assert re.findall(r"^# code object from .*\.py'?$", done.stderr, re.MULTILINE) == []
        assert len(re.findall(r"^# code object from .*\.pyc'?$", done.stderr, re.MULTILINE)) > 100


def test_nothing_lies_about(images: None) -> None:
    """No cache, no secret, nothing of the checkout but what it is for; in no layer."""
    program = """
import json, os
files, seen = {}, set()
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    for name in names:
        status = os.lstat(os.path.join(folder, name))
        file = status.st_dev, status.st_ino
        files[os.path.join(folder, name)] = 0 if file in seen else status.st_size
        seen.add(file)
print(json.dumps(files))
"""
    for image in (FULL, CLIENT, STORE):
        command = ["run", "--rm", "--network=none", "--user=root", "--entrypoint=python", image]
        files = json.loads(docker(*command, "-c", program))
        for pattern in (
            r"/root/\.cache/",
            r"/home/[^/]*/\.cache/",
            r"/uv-cache/",
            r"/var/lib/apt/lists/.*(Packages|Release)",
            r"/var/cache/apt/.*\.(deb|bin)",
            r"/(tools|build|dist|source)/",
            r".*/\.git(/|$)",
            r".*/\.env",
            r".*/\.aws(/|$)",
            r"/work/",
            r"/tmp/",
            r".*/notes\.txt$",
        ):
            assert [name for name in files if re.match(pattern, name)] == []
        # A layer's file that a later one has removed or replaced is in no file system, but weighs.
        assert inspect(image)["Size"] < sum(files.values()) + 10_000_000
    for image in (FULL, CLIENT, STORE):
        made = docker("container", "create", image).strip()
        try:
            with subprocess.Popen(["docker", "export", made], stdout=subprocess.PIPE) as export:
                found = subprocess.run(["grep", "-aFc", SECRET], stdin=export.stdout, check=False)
            assert export.returncode == 0
            assert found.returncode == 1, f"a secret is in {image}"
        finally:
            docker("rm", "--volumes", made)
        assert SECRET not in json.dumps(inspect(image))
        assert SECRET not in docker("history", "--no-trunc", image)


def test_a_change_of_code_keeps_what_it_stands_on(caller: Caller, images: None) -> None:
    """Also one of the version or of a tool's settings; the build knows the commit without make."""
    changed = caller.checkout / "src/positronic/geom.py"
    changed.write_text(changed.read_text() + "\nCHANGED = 41 + 1\n")
    pyproject = caller.checkout / "pyproject.toml"
    text = pyproject.read_text()
    version = re.compile('^version = ".*"', re.MULTILINE)
    pyproject.write_text(version.sub('version = "99.0.1"', text) + "\n# changed\n")
    caller.ok("docker compose build positronic-to-lerobot client", IMAGE_TAG=OTHER)
    for image in (FULL, CLIENT):
        built = image.replace(f":{TAG}", f":{OTHER}")
        before, after = (inspect(each)["RootFS"]["Layers"] for each in (image, built))
        kept = [old for old, new in zip(before, after, strict=True) if old == new]
        # All but the wheel and the folder that is made after it.
        assert kept == before[:-2]
        program = """
import importlib.metadata as m, positronic.geom as g, positronic.source as s
print(json.dumps([g.CHANGED, m.version("positronic-lightning"), s.commit()]))
"""
        commit = caller.ok("git rev-parse HEAD", folder=".").strip()
        assert python(built, program) == [42, "99.0.1", commit]
        docker("image", "rm", built)


def test_every_kind_of_checkout_builds(caller: Caller, images: None) -> None:
    commit = caller.ok("git rev-parse HEAD", folder=".").strip()
    repository = caller.checkout / ".git"

    def built() -> Any:
        caller.ok("docker compose build client", IMAGE_TAG=OTHER)
        image = f"positronic-lightning-client:{OTHER}"
        found = python(image, "import positronic.source as s; print(json.dumps(s.commit()))")
        docker("image", "rm", image)
        return found

    caller.ok("git pack-refs --all", folder=".")
    assert built() == commit
    caller.ok("git checkout --quiet --detach", folder=".")
    assert built() == commit
    shutil.move(repository, caller.home / "repository")
    assert built() is None  # of an archive
    repository.write_text("gitdir: /elsewhere\n")
    assert built() is None  # of a worktree
    repository.unlink()
    shutil.move(caller.home / "repository", repository)
