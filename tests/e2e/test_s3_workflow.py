"""From recordings to a served policy, all of it on S3, on a new machine at each step."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation import storage
from foundation.manifest import faults
from positronic.offboard.client import InferenceClient
from tests.positronic.vendors.lerobot.raw import FPS, record
from tests.positronic.vendors.lerobot.small_policy import observation
from tests.waiting import line_of

pytestmark = pytest.mark.e2e

LEROBOT = "positronic.vendors.lerobot"
STEPS, SAVE_FREQ, STOP_AFTER = 9, 4, 5
TRAIN = [
    sys.executable,
    "-m",
    f"{LEROBOT}.train",
    "--dataset_root=s3://bucket/converted",
    "--output_dir=s3://bucket/runs",
    f"--codec=@{LEROBOT}.codecs.eepose_absolute",
    "--codec.image_size=64",
    "--policy=.act_64px",
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=32",
    "--policy.chunk_size=6",
    "--policy.n_action_steps=4",
    f"--steps={STEPS}",
    f"--save_freq={SAVE_FREQ}",
    "--batch_size=4",
    "--log_freq=1",
    "--device=cpu",
]


@pytest.fixture
def elsewhere(s3: Any, tmp_path: Path) -> Callable[[], None]:
    """Makes this machine a new one, which has nothing but what is on S3."""

    def lose() -> None:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    return lose


def done(*words: object) -> str:
    """Run a command to its end; return what it said."""
    ended = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def stopped(*words: object) -> str:
    """Run a command, send it SIGTERM after some steps, and return what it said."""
    with subprocess.Popen([str(w) for w in words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(f"step {STOP_AFTER}/"):
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM, "".join(said)
    return "".join(said)


def losses(text: str) -> dict[str, str]:
    return dict(re.findall(r"^step (\d+)/\d+  loss (\S+)", text, re.MULTILINE))


def weights(run_name: str) -> bytes:
    path = f"checkpoints/{STEPS:06d}/pretrained_model/model.safetensors"
    return storage.read_bytes(f"s3://bucket/runs/{run_name}/{path}")


def test_each_step_on_another_machine(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    for index in range(3):
        record(tmp_path / "raw", index)
    storage.publish(tmp_path / "raw", "s3://bucket/raw")
    elsewhere()
    command = Path(sys.executable).parent / "positronic-to-lerobot"
    done(
        command,
        "convert",
        "--dataset.dataset=s3://bucket/raw",
        f"--dataset.codec=@{LEROBOT}.codecs.eepose_absolute",
        "--dataset.codec.image_size=64",
        "--output_dir=s3://bucket/converted",
        f"--fps={FPS}",
    )
    elsewhere()
    assert "3 episodes" in done(command, "verify", "--dataset_root=s3://bucket/converted")

    elsewhere()
    whole = losses(done(*TRAIN, "--run_name=whole"))
    assert len(whole) == STEPS

    elsewhere()
    said = stopped(*TRAIN, "--run_name=run")
    before = losses(said)
    last = storage.read_bytes("s3://bucket/runs/run/checkpoints/last").decode().strip()
    assert f"saved as s3://bucket/runs/run/checkpoints/{last}; " in said
    assert int(last) == len(before) >= STOP_AFTER

    elsewhere()
    after = losses(done(*TRAIN, "--run_name=run", "--resume=True"))
    assert before | after == whole
    assert len(before) + len(after) == STEPS
    assert weights("run") == weights("whole")
    for name in storage.children("s3://bucket/runs/run/checkpoints"):
        if name != "last":
            assert faults(storage.fetch(f"s3://bucket/runs/run/checkpoints/{name}")) == []

    elsewhere()
    serve = [
        sys.executable,
        "-m",
        f"{LEROBOT}.server",
        "--checkpoints_dir=s3://bucket/runs/run",
        "--port=0",
        "--device=cpu",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        port = int(line_of(server.stdout, "the server's address").strip().rpartition(":")[2])
        assert f"{STEPS:06d}" in line_of(server.stdout, "the server to be ready", 600)
        with InferenceClient("127.0.0.1", port).new_session() as session:
            assert session.meta["checkpoint_id"] == f"{STEPS:06d}"
            assert len(session.infer(observation(0))) == 4
        server.terminate()
