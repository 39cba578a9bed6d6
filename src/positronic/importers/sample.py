"""``positronic-import robomimic-sample``: download a small file of real human demonstrations.

It is a test asset in the source distribution of ``robomimic`` 0.1.0 (MIT licence): ten successful
Panda *Lift* episodes, 531 steps at 20 Hz, two 84x84 cameras, 46 MB unpacked.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import configuronic as cfn

from foundation.cache import cache_root, exclusive
from foundation.errors import StorageError
from foundation.files import sha256_of

REQUIREMENT = "robomimic==0.1.0"
MEMBER = "robomimic-0.1.0/tests/assets/test.hdf5"
SHA256 = "80dea9ca9bb99dd7b96109712fc6b46bb6fa6b87e9622b8aebbe1e4ee5fadbab"
ATTEMPT_TIMEOUT_S = 300


@cfn.config()
def robomimic_sample() -> None:
    """Download ten real human demonstrations (46 MB, once) and print the file's path.

    Example:
        positronic-import robomimic-sample
    """
    print(fetch())


def cache_dir() -> Path:
    """Cache directory of the sample: ``~/.cache/positronic/robomimic``."""
    return cache_root() / "positronic" / "robomimic"


def fetch() -> Path:
    """Path of the sample file, downloaded with pip (by package name) unless it is cached.

    StorageError if every download attempt fails or the file's digest is wrong. A lock makes
    concurrent processes share one download.
    """
    target = cache_dir() / "robomimic-0.1.0-test.hdf5"
    if _is_complete(target):
        return target
    with exclusive(target.parent / ".lock"):
        if not _is_complete(target):
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                unpacked = _unpack(_download(Path(scratch)), Path(scratch))
                os.replace(unpacked, target)
    return target


def _is_complete(target: Path) -> bool:
    try:
        return sha256_of(target) == SHA256
    except FileNotFoundError:
        return False


def _download(scratch: Path) -> Path:
    """Download the source distribution with the first pip that works.

    An environment made by uv has no pip, and not every Python has ensurepip.
    """
    failures = []
    options = ["download", "--no-deps", "--no-binary=robomimic", f"--dest={scratch}", REQUIREMENT]
    for pip in _pips(scratch):
        command = [*pip, *options]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=ATTEMPT_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            failures.append(str(error))
            continue
        archives = sorted(scratch.glob("robomimic-*.tar.gz"))
        if done.returncode == 0 and archives:
            return archives[0]
        failures.append((done.stderr.strip().splitlines() or ["no message"])[-1])
    raise StorageError(
        f"could not download {REQUIREMENT} with pip ({'; '.join(failures) or 'found no pip'}); "
        f"put {MEMBER} of its source distribution at {cache_dir()}/robomimic-0.1.0-test.hdf5"
    )


def _pips(scratch: Path) -> Iterator[list[str]]:
    """Commands that run pip: this Python's, a new environment's, the system Python's, uv's."""
    yield [sys.executable, "-m", "pip"]
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(scratch / "venv")], capture_output=True, check=False
    )
    if made.returncode == 0:
        yield [str(scratch / "venv" / "bin" / "python"), "-m", "pip"]
    system = shutil.which("python3", path=os.defpath)
    if system:
        yield [system, "-m", "pip"]
    beside = Path(sys.prefix).parent / ".tools" / "uv" / "bin" / "uv"
    uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
    if uv:
        yield [uv, "tool", "run", "pip"]


def _unpack(archive: Path, scratch: Path) -> Path:
    """Extract the file from the archive and check its digest."""
    unpacked = scratch / "test.hdf5"
    digest = hashlib.sha256()
    try:
        with tarfile.open(archive) as tar, unpacked.open("wb") as out:
            member = tar.extractfile(MEMBER)
            assert member is not None
            while block := member.read(1 << 20):
                digest.update(block)
                out.write(block)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise StorageError(f"{archive.name} has no readable {MEMBER}: {error}") from error
    if digest.hexdigest() != SHA256:
        raise StorageError(f"{MEMBER} has digest {digest.hexdigest()}, expected {SHA256}")
    return unpacked
