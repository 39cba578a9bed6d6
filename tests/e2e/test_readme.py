"""The documents' commands run as they are written, only smaller and with a home of their own."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from positronic.dataset import load_all_datasets
from tests import hub_server
from tests.documents import ROOT, blocks, put_backbone_weights, smaller
from tests.positronic.importers.test_aloha import write as write_act
from tests.positronic.vendors.lerobot.native_dataset import write_so100

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent


def environment(home: Path) -> dict[str, str]:
    # Nothing but this machine is asked for anything, which `refused` would tell.
    alone = {"PYTHONPATH": str(ROOT / "tests/no_network"), "REFUSED": str(home / "refused")}
    cache = {"TORCH_HOME": str(home / "torch")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    own = ("XDG_", "HF_")
    unset = {k: v for k, v in os.environ.items() if k != "DISPLAY" and not k.startswith(own)}
    return {**unset, **alone, **cache, "HOME": str(home), "PATH": path}


def sh(command: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def server(command: str, env: dict[str, str]) -> Iterator[None]:
    words = shlex.split(command.replace("\\\n", " "))
    expanded = [re.sub(r"=~/", f"={env['HOME']}/", word) for word in words]
    log = Path(env["HOME"]) / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(BIN / expanded[0]), *expanded[1:]], env=env, stdout=out, stderr=out
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            if "ready in" in log.read_text():
                break
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, log.read_text()


def run_section(section: str, home: Path, **variables: str) -> str:
    """Run the section's blocks in order; those after a ``server`` block run beside the server."""
    env = environment(home) | variables
    printed = ""
    serving = None
    try:
        for marks, body in blocks(section):
            command = smaller(body)
            if marks.startswith("python"):
                command = shlex.join([sys.executable, "-c", command])
            if "server" in marks:
                serving = server(command, env)
                serving.__enter__()
            else:
                printed += sh(command, env)
    finally:
        if serving is not None:
            serving.__exit__(None, None, None)
    refused = home / "refused"
    assert not refused.exists(), refused.read_text()
    return printed


def test_the_workflow(tmp_path: Path) -> None:
    put_backbone_weights(tmp_path / "torch")
    printed = run_section("workflow", tmp_path)
    assert "95 % Wilson interval" in printed
    assert "100 actions, the first: {'type': 'cartesian_pos'" in printed
    assert len(load_all_datasets(tmp_path / "datasets/inference_logs")) == 1
    assert (tmp_path / "datasets/inference_logs/report.html").stat().st_size > 10_000
    assert "of 3 episodes stand out" in run_section("curate", tmp_path)
    assert len(json.loads((tmp_path / "datasets/scores.json").read_text())) == 3
    run = tmp_path / "checkpoints/lerobot/experiment_v1/checkpoints"
    assert sorted(p.name for p in run.iterdir()) == ["000002", "last"]
    printed = run_section("serving", tmp_path)
    assert '"ready":true' in printed.replace(" ", "")
    assert "positronic_sessions 0.0" in printed
    for page in ("delay_logs/report.html", "comparison/comparison.html"):
        assert (tmp_path / "datasets" / page).stat().st_size > 10_000


def test_human_demonstrations(tmp_path: Path) -> None:
    # Its sample is downloaded, as its command says.
    run_section("human", tmp_path, PYTHONPATH="")
    assert list(tmp_path.rglob("open_loop.html"))


def test_a_lerobot_dataset_as_it_is(tmp_path: Path) -> None:
    put_backbone_weights(tmp_path / "torch")
    write_so100(tmp_path / "datasets/so100")
    printed = run_section("data_in", tmp_path)
    assert "shoulder_pan.pos to " in printed
    assert "actions, the second after 0.033 s" in printed
    assert "2 episodes, 25 steps" in printed
    assert (tmp_path / "datasets/so100-open-loop/open_loop.html").stat().st_size > 10_000


def test_recordings_of_aloha(tmp_path: Path) -> None:
    for index in range(3):
        write_act(tmp_path / "datasets/act", index)
    printed = run_section("aloha", tmp_path)
    assert "imported 3 of 3 episodes at 50 per second" in printed
    assert (tmp_path / "datasets/lerobot/aloha/meta/contract.json").is_file()


def test_a_program_that_asks_another_machine_is_found_out(tmp_path: Path) -> None:
    env = environment(tmp_path)
    ask = "import socket; socket.create_connection(('{}', 80))"
    for host in ("192.0.2.1", "huggingface.co"):
        done = subprocess.run(
            [sys.executable, "-c", ask.format(host)], env=env, capture_output=True, check=False
        )
        assert b"refuses to leave this machine" in done.stderr
        assert host in (tmp_path / "refused").read_text()


def test_the_hub(tmp_path: Path) -> None:
    record = "positronic-data-collection scripted --env=stack_cubes --episodes=3 --cameras=none"
    sh(f"{record} --output_dir=~/datasets/stack_cubes", environment(tmp_path))
    for hub in hub_server.serving():
        hub.user = "USER"
        printed = run_section("hub", tmp_path, **hub.environment(tmp_path / "huggingface"))
        policy = hub.of("model", "USER/stack_cubes_act").files()
        served = hub.of("model", "USER/stack_cubes_act").branches["main"][:12]
    assert "valid: 3 episodes" in printed
    assert served in printed
    fetched = tmp_path / "stack_cubes_act/model.safetensors"
    assert fetched.read_bytes() == policy["model.safetensors"]


def test_s3(tmp_path: Path, s3: Any) -> None:
    for bucket in ("interim", "checkpoints"):
        s3.create_bucket(Bucket=bucket)
    record = "positronic-data-collection scripted --env=stack_cubes --episodes=3"
    sh(f"{record} --output_dir=~/datasets/stack_cubes", environment(tmp_path))

    def last(run: str) -> str:
        found = s3.get_object(Bucket="checkpoints", Key=f"lerobot/{run}/checkpoints/last")
        return str(found["Body"].read().decode().strip())

    run_section("s3", tmp_path)
    assert last("experiment_s3") == "000002"
    printed = run_section("jobs", tmp_path)
    assert "000002" in printed
    assert "000003" in printed
    assert last("experiment_v1") == "000003"
    run_section("storage", tmp_path)
    assert len(list((tmp_path / "copy").rglob("static.json"))) == 3
