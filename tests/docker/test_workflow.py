"""The workflow in containers: as the documents show it, and from a recording, here and on S3."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from positronic.dataset import load_all_datasets
from tests.docker.caller import ROOT, Caller, docker, serving
from tests.docker.conftest import new_caller
from tests.documents import blocks, put_backbone_weights, smaller

FIXTURE = ROOT / "../shared/fixtures/recorded_sim"
CODECS = "@positronic.vendors.lerobot.codecs"
ON_S3 = "docker compose --env-file object-store.env"
# As the engine publishes it to this machine alone.
S3 = {"endpoint_url": "http://127.0.0.1:9000", "region_name": "us-east-1"}
KEYS = {"aws_access_key_id": "positronic", "aws_secret_access_key": "positronic"}
# Enough to be stopped in their midst.
STEPS = 20


def run_section(caller: Caller, section: str, log: Path) -> str:
    """Run a document's blocks in order; those after a ``server`` block run beside the server."""
    printed = ""
    before, server, after = "", None, []
    for marks, body in blocks(section):
        if "server" in marks:
            server = smaller(body)
        elif server is None:
            before += smaller(body)
        else:
            after.append(smaller(body))
    # They begin where the document does: with `cd docker`, in the checkout.
    printed += caller.ok(before, folder=".")
    if server is not None:
        wait_for(lambda: free(8000), "port 8000 to be free")
        with serving(caller, server, log):
            printed += "".join(caller.ok(body) for body in after)
    return printed


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def wait_for(condition: Any, what: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def version(caller: Caller) -> str:
    found = re.search('^version = "(.*)"', (caller.checkout / "pyproject.toml").read_text(), re.M)
    assert found
    return found[1]


def provenance(caller: Caller, dataset: str) -> Any:
    return json.loads((caller.home / dataset / "meta/provenance.json").read_text())


def frames(root: Path) -> int:
    """How many frames LeRobot finds in a dataset; the first and the last can be read."""
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset("local/dataset", root=root, video_backend="pyav")
    for index in (0, len(dataset) - 1):
        assert dataset[index]["observation.state"].isfinite().all()
    return len(dataset)


def frames_of(made_by: Any) -> int:
    return sum(each["frames"] for each in made_by["episodes"])


def steps_of(printed: str) -> list[int]:
    """The steps that training printed a line of."""
    return [int(step) for step in re.findall(r"^step (\d+)/", printed, re.MULTILINE)]


@pytest.fixture
def s3() -> Any:
    """A client of the object store, which the commands start."""
    return boto3.client("s3", **S3, **KEYS)


@contextmanager
def object_store(caller: Caller) -> Iterator[None]:
    wait_for(lambda: free(9000), "port 9000 to be free")
    caller.ok(f"{ON_S3} up --detach --wait object-store")
    try:
        yield
    finally:
        caller.ok(f"{ON_S3} down --volumes")


def text(s3: Any, bucket: str, key: str) -> str:
    return str(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())


def test_the_docker_document(caller: Caller, images: None, tmp_path: Path) -> None:
    printed = run_section(caller, "docker", tmp_path / "server.log")
    assert '"000004"' in printed  # of curl
    assert "success rate" in printed
    recorded = caller.home / "datasets/stack_cubes"
    assert len(load_all_datasets(recorded)) == 3
    converted = "datasets/lerobot/stack_cubes/eepose_state"
    made_by = provenance(caller, converted)
    assert made_by["commit"] == caller.revision()
    assert [each["source"] for each in made_by["episodes"]] == [
        str(recorded / f"000000000000/{index:012d}") for index in range(3)
    ]
    assert frames(caller.home / converted) == frames_of(made_by)
    run = caller.home / "checkpoints/lerobot/experiment_v1/checkpoints"
    saved = ["000001", "000002", "000003", "000004", "last"]
    assert sorted(path.name for path in run.iterdir()) == saved
    signed = json.loads((run / "last/pretrained_model/provenance.json").read_text())
    assert signed["starts"][0]["commit"] == caller.revision()
    assert signed["starts"][0]["versions"]["positronic-lightning"] == version(caller)
    assert len(load_all_datasets(caller.home / "datasets/inference_logs")) == 1

    wait_for(lambda: free(9000), "port 9000 to be free")
    printed = run_section(caller, "docker-s3", tmp_path / "none.log")
    assert "converted 3 episodes" in printed
    assert "s3://checkpoints/lerobot/experiment_s3/checkpoints/000002" in printed
    assert caller.strangers() == []


def test_the_readme(engine: None, images: None, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="positronic-docker-", dir="/tmp") as home:
        caller = new_caller(Path(home))
        put_backbone_weights(caller.home / ".cache/torch")
        caller.own(caller.home / ".cache")
        printed = run_section(caller, "docker-four", tmp_path / "server.log")
        assert "success rate" in printed
        assert (caller.home / "datasets/inference_logs/report.html").stat().st_size > 10_000
        assert caller.strangers() == []


@pytest.mark.skipif(not FIXTURE.is_dir(), reason=f"needs {FIXTURE}")
def test_a_recording_here_and_on_s3(caller: Caller, images: None, s3: Any, tmp_path: Path) -> None:
    raw = caller.home / "datasets/recorded_sim"
    shutil.copytree(FIXTURE, raw)
    caller.own(caller.home / "datasets")
    convert = (
        f"{ON_S3} run --rm positronic-to-lerobot convert --dataset.dataset=~/datasets/recorded_sim"
        f" --dataset.codec={CODECS}.eepose_absolute --dataset.codec.image_size=64 --fps=15"
    )
    train = f"{ON_S3} run --rm lerobot-train --policy=.act_64px --batch_size=4 --log_freq=1"
    with object_store(caller):
        # Two services at the same time.
        log = tmp_path / "convert.log"
        beside = caller.start(f"{convert} --output_dir=s3://interim/recorded/", log)
        caller.ok(f"{convert} --output_dir=~/datasets/lerobot/recorded")
        assert beside.wait(timeout=240) == 0, log.read_text()
        here = provenance(caller, "datasets/lerobot/recorded")
        there = json.loads(text(s3, "interim", "recorded/meta/provenance.json"))
        assert here["commit"] == there["commit"] == caller.revision()
        assert here["episodes"] == there["episodes"]
        assert frames(caller.home / "datasets/lerobot/recorded") == frames_of(here)

        caller.ok(
            f"{train} --dataset_root=~/datasets/lerobot/recorded --output_dir=~/checkpoints/lerobot"
            " --run_name=recorded --steps=2"
        )
        assert (caller.home / "checkpoints/lerobot/recorded/checkpoints/000002").is_dir()

        train += (
            " --dataset_root=s3://interim/recorded/ --output_dir=s3://checkpoints/lerobot/"
            f" --run_name=recorded --steps={STEPS} --save_freq=1000"
        )
        log = tmp_path / "train.log"
        training = caller.start(train, log)
        wait_for(lambda: steps_of(log.read_text()) or training.poll() is not None, "a step")
        assert training.poll() is None, log.read_text()
        docker("stop", *caller.containers("lerobot-train"))
        assert training.wait(timeout=120) == 128 + signal.SIGTERM, log.read_text()
        stopped = int(text(s3, "checkpoints", "lerobot/recorded/checkpoints/last"))
        assert steps_of(log.read_text()) == [*range(1, stopped + 1)]
        assert stopped < STEPS
        assert f"checkpoints/{stopped:06d}" in log.read_text()
        printed = caller.ok(f"{train} --resume=True")
        assert steps_of(printed) == [*range(stopped + 1, STEPS + 1)]
        assert int(text(s3, "checkpoints", "lerobot/recorded/checkpoints/last")) == STEPS
        saved = f"lerobot/recorded/checkpoints/{STEPS:06d}/pretrained_model/provenance.json"
        starts = json.loads(text(s3, "checkpoints", saved))["starts"]
        assert [(start["step"], start["commit"]) for start in starts] == [
            (0, caller.revision()),
            (stopped, caller.revision()),
        ]

        serve = (
            f"{ON_S3} run --rm --service-ports lerobot-server"
            " --checkpoints_dir=s3://checkpoints/lerobot/recorded --backend=torch"
        )
        roll_out = (
            "sim --policy=.remote --policy.port=8123 --driver.num_iterations=1"
            " --driver.simulation_time=1"
        )
        with serving(caller, serve, tmp_path / "server.log", SERVER_PORT="8123"):
            listed = json.loads(caller.ok("curl --silent http://localhost:8123/api/v1/models"))
            assert listed == {"models": [f"{stopped:06d}", f"{STEPS:06d}"]}
            log = tmp_path / "rollout.log"
            beside = caller.start(
                f"docker compose run --rm positronic-inference {roll_out}"
                " --policy.host=lerobot-server --output_dir=~/datasets/rollouts",
                log,
            )
            # From this machine's own installation, as whoever runs the tests.
            command = [str(Path(sys.executable).parent / "positronic-inference"), *roll_out.split()]
            subprocess.run(
                [*command, "--policy.host=localhost", f"--output_dir={tmp_path / 'rollouts'}"],
                check=True,
            )
            assert beside.wait(timeout=240) == 0, log.read_text()
    for rollouts in (tmp_path / "rollouts", caller.home / "datasets/rollouts"):
        assert len(load_all_datasets(rollouts)) == 1
    assert caller.strangers() == []
