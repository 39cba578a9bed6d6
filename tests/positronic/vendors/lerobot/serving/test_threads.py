import os
import subprocess
import sys
from pathlib import Path

import pytest

from positronic.codec import Contract
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.threads import choose_threads
from tests.positronic.vendors.lerobot.small_policy import make_run

NAMES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")


@pytest.mark.parametrize("images", [True, False])
def test_threads_fit_the_work_unless_the_operator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, images: bool
) -> None:
    contract = Contract.of(codecs.eepose_absolute() if images else codecs.eepose_state(), fps=15)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    choose_threads(contract)
    assert os.environ["OMP_NUM_THREADS"] == ("4" if images else "1")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    choose_threads(contract)
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.e2e
def test_a_policy_in_process_chooses_before_torch_looks(tmp_path: Path) -> None:
    run = make_run(tmp_path, codecs.eepose_state(), (10000,))
    code = (
        "import os, sys\n"
        "from positronic.vendors.lerobot.serving.policy import load_policy\n"
        "load_policy(checkpoints_dir=sys.argv[1], device='cpu')\n"
        "import torch\n"
        "assert torch.get_num_threads() == 1, torch.get_num_threads()\n"
        "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in NAMES}
    subprocess.run([sys.executable, "-c", code, str(run)], env=environment, check=True)
