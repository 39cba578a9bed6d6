"""What the Compose files say, and what of it reaches a container."""

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from positronic.vendors.lerobot import codecs
from tests.docker.caller import Caller, docker, serving
from tests.positronic.vendors.lerobot.small_policy import make_run

# Of issue 6; what runs a step of the workflow, and what stands beside it.
STEPS = {
    "positronic-to-lerobot": "30s",
    "lerobot-train": "5m0s",
    "lerobot-server": "45s",
    "positronic-inference": "30s",
    "positronic-data-collection": "30s",
}
OTHERS = {"positronic", "demo", "object-store", "client"}
WITH_GPU = {*STEPS, "demo"} - {"positronic-to-lerobot"}
RENDERING = WITH_GPU - {"lerobot-train", "lerobot-server"}
# Where WandB may put its own files.
ALWAYS = {"WANDB_CONFIG_DIR": "/tmp/wandb-config", "WANDB_DATA_DIR": "/tmp/wandb-data"}
SERVE = "docker compose run --rm --service-ports lerobot-server --checkpoints_dir=~/checkpoints/run"
GPU = {"driver": "nvidia", "capabilities": ["gpu"]}


def services(caller: Caller, **variables: str) -> dict[str, Any]:
    """The services as Compose understands them."""
    printed = caller.ok(
        "docker compose --profile '*' config --format json", timeout=60, **variables
    )
    found: dict[str, Any] = json.loads(printed)["services"]
    return found


def test_every_service_of_the_base_file(caller: Caller) -> None:
    found = services(caller)
    assert set(found) == {*STEPS, *OTHERS}
    for name, grace in STEPS.items():
        service = found[name]
        assert service["stop_grace_period"] == grace
        assert int(service["shm_size"]) == 8 * 2**30
        assert service["read_only"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        mounted = {each.get("source"): each for each in service["volumes"]}
        for folder in ("datasets", "checkpoints", ".cache"):
            place = f"{caller.home}/{folder}"
            assert mounted[place]["target"] == place
            assert "read_only" not in mounted[place]
        private = [each for each in service["volumes"] if each["target"] == f"{caller.home}/.aws"]
        assert [each["read_only"] for each in private] == [True]
    for service in found.values():
        assert "deploy" not in service
    (port,) = found["lerobot-server"]["ports"]
    assert (port["target"], port["published"]) == (8000, "8000")
    (port,) = services(caller, SERVER_PORT="8123")["lerobot-server"]["ports"]
    assert (port["target"], port["published"]) == (8000, "8123")


def test_the_gpu_file_adds_devices_and_nothing_else(caller: Caller) -> None:
    files = "docker-compose.yml:docker-compose.gpu.yml"
    base, found = services(caller), services(caller, COMPOSE_FILE=files, GPU_COUNT="2")
    devices = {
        name: service.pop("deploy")["resources"]["reservations"]["devices"]
        for name, service in found.items()
        if "deploy" in service
    }
    assert devices == {name: [{**GPU, "count": 2}] for name in WITH_GPU}
    wants = {
        name: service["environment"].pop("NVIDIA_DRIVER_CAPABILITIES")
        for name, service in found.items()
        if "NVIDIA_DRIVER_CAPABILITIES" in service.get("environment", {})
    }
    assert wants == dict.fromkeys(RENDERING, "compute,utility,graphics")
    assert found == base


def test_what_a_container_knows_of_the_shell(caller: Caller, images: None) -> None:
    show = "docker compose run --rm positronic env"

    def told(**variables: str) -> dict[str, str]:
        printed = caller.ok(show, timeout=60, **variables)
        return dict(re.findall("^((?:AWS|WANDB|HF)_.*?)=(.*)$", printed, re.MULTILINE))

    assert told() == ALWAYS
    shell = {"AWS_PROFILE": "lab", "HF_TOKEN": "hf", "WANDB_API_KEY": "shell"}
    assert told(**shell, UNKNOWN="no") == ALWAYS | shell
    file = caller.checkout / "docker/.env.wandb"
    file.write_text("# mine\nWANDB_API_KEY=file\nWANDB_PROJECT=stacking\n")
    from_file = {"WANDB_API_KEY": "file", "WANDB_PROJECT": "stacking"}
    assert told(WANDB_MODE="offline") == ALWAYS | from_file | {"WANDB_MODE": "offline"}
    file.unlink()


def test_the_home_is_needed(caller: Caller) -> None:
    # Without one Docker would not find Compose either.
    lost = f"env -u HOME DOCKER_CONFIG={caller.home}/.docker docker compose config"
    refused = caller.run(lost)
    assert refused.status != 0
    assert "required variable HOME is missing a value: set it to the folder" in refused.printed


def test_health_and_ports(caller: Caller, images: None, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = caller.run(SERVE, SERVER_PORT=port)
    assert refused.status == 1
    assert f"0.0.0.0:{port}" in refused.printed
    assert re.search("address already in use|port is already allocated", refused.printed)
    assert caller.containers("lerobot-server", every=True) == []

    make_run(caller.home / "checkpoints/run", codecs.eepose_state.instantiate(), steps=(2,))
    caller.own(caller.home / "checkpoints")
    with serving(caller, SERVE, tmp_path / "log", SERVER_PORT=port) as container:
        with urllib.request.urlopen(f"http://localhost:{port}/api/v1/models") as answer:
            assert json.load(answer) == {"models": ["000002"]}
        check = services(caller)["lerobot-server"]["healthcheck"]["test"]
        assert check.pop(0) == "CMD"
        docker("exec", container, *check)
        # One that hangs, as its own pid on this machine.
        running = docker("top", container, "-o", "pid,comm").splitlines()
        (pid,) = [int(line.split()[0]) for line in running if line.split()[1] == "python"]
        os.kill(pid, signal.SIGSTOP)
        hanging = subprocess.run(["docker", "exec", container, *check], capture_output=True)
        os.kill(pid, signal.SIGCONT)
        assert hanging.returncode == 1
        assert b"timed out" in hanging.stderr
