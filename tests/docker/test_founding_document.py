"""The founding document's commands, typed as they stand there; only numbers are made smaller.

What is not within reach here is put where it would be found: the public dataset in the object
store, to which the caller's own file of profiles leads, and the backbone's weights in the cache.
"""

import json
import re
import urllib.request
from pathlib import Path

import pytest

from tests.docker.caller import ROOT, Caller, serving
from tests.documents import put_backbone_weights, smaller

DOCUMENT = ROOT / "../shared/seeds/positronic_act_workflow.md"
RECORDED = ROOT / "../shared/fixtures/recorded_sim"
ENDPOINT = "http://object-store:9000"
UPLOAD = f"""
import boto3, pathlib, sys
client = boto3.client("s3", endpoint_url="{ENDPOINT}")
client.create_bucket(Bucket="positronic-public", ACL="public-read")
root = pathlib.Path(sys.argv[1])
for path in root.rglob("*"):
    if path.is_file():
        key = f"datasets/sim-stack-cubes/{{path.relative_to(root)}}"
        body = path.read_bytes()
        client.put_object(Bucket="positronic-public", Key=key, Body=body, ACL="public-read")
"""


def commands() -> list[str]:
    """The document's shell commands in their order."""
    return re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.skipif(not DOCUMENT.exists(), reason=f"needs {DOCUMENT}")
@pytest.mark.skipif(not RECORDED.exists(), reason=f"needs {RECORDED}")
def test_the_four_commands(caller: Caller, images: None, tmp_path: Path) -> None:
    convert, train, train_joints, serve, roll_out = commands()
    caller.variables = {
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    profiles = caller.home / ".config/positronic/profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(f'[PUBLIC]\nendpoint = "{ENDPOINT}"\n')
    caller.own(caller.home / ".config")
    put_backbone_weights(caller.home / ".cache/torch")
    caller.own(caller.home / ".cache")
    caller.ok("docker compose --profile s3 up --detach --wait object-store")
    caller.ok(
        "docker compose run --rm --volume=$RECORDED:/recorded:ro positronic"
        ' python -c "$UPLOAD" /recorded',
        RECORDED=str(RECORDED.resolve()),
        UPLOAD=UPLOAD,
    )

    printed = caller.ok(smaller(convert))
    assert "converted 2 episodes" in printed
    caller.ok(smaller(convert.replace("eepose_absolute", "joints_absolute")))
    caller.ok(smaller(train))
    caller.ok(smaller(train_joints))

    with serving(caller, serve, tmp_path / "server.log"):
        with urllib.request.urlopen("http://localhost:8000/api/v1/models") as answer:
            assert json.load(answer) == {"models": ["000002"]}
        # From a container in the server's stead; `uv run` in a checkout has a test of its own, and
        # no machine here is called desktop.
        here = roll_out.replace("uv run", "docker compose run --rm").replace("desktop", "localhost")
        printed = caller.ok(smaller(here))
    assert "no camera window" in printed
    assert "success rate" in printed
    assert (caller.home / "datasets/inference_logs/report.html").stat().st_size > 10_000
    assert caller.strangers() == []
