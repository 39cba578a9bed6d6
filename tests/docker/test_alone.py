"""The whole loop in one container without a network: nothing reaches for a hub."""

import json
import re

import pytest

from tests.docker.caller import Caller

ALONE = {"services": {"demo": {"network_mode": "none"}}}


@pytest.mark.parametrize("what", ["", "--task=pick_place --obs=images"], ids=["state", "images"])
def test_the_demo_needs_nobody(what: str, caller: Caller, images: None) -> None:
    (caller.checkout / "docker/alone.yml").write_text(json.dumps(ALONE))
    files = "docker-compose.yml:alone.yml"
    look = "docker compose run --rm --entrypoint=cat demo /proc/net/dev"
    assert re.findall(r"^ *(\w+):", caller.ok(look, COMPOSE_FILE=files), re.M) == ["lo"]

    small = "--episodes=3 --steps=5 --rollouts=1"
    printed = caller.ok(f"docker compose run --rm demo {what} {small}", COMPOSE_FILE=files)
    assert "success rate " in printed
    for word in ("huggingface", "retry", "resolve"):
        assert word not in printed.lower()
    task = "pick_place-images" if what else "stack_cubes-state"
    assert (caller.checkout / f"demo/{task}/rollouts/report.html").is_file()
    assert [path for path in caller.strangers() if path.name != "alone.yml"] == []
