"""Commands and programs that the documents show, to be run as they are written, only smaller."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "docs/codecs.md",
    "docs/data_in.md",
    "docs/docker.md",
    "docs/hub.md",
    "docs/jobs.md",
    "docs/raw_episodes.md",
    "docs/serving.md",
    "docs/storage.md",
)
# What a machine without a GPU does in a minute; names and order of flags stay the documents'.
SMALLER = {"episodes": 3, "steps": 2, "save_freq": 2, "num_iterations": 1, "simulation_time": 1}


def blocks(section: str) -> list[tuple[str, str]]:
    """The fenced blocks marked ``section``: (language and further words, text)."""
    text = "\n".join((ROOT / name).read_text() for name in DOCUMENTS)
    found = re.findall(r"^```((?:bash|python) [^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [
        (marks, body)
        for marks, body in found
        if marks.split()[1] == section and "skip" not in marks
    ]


def smaller(command: str) -> str:
    """The same command with small numbers; of thousands of steps, as many as thousands."""
    thousands = re.sub(r"(--(?:steps|save_freq)=[1-9])000\b", r"\1", command)
    if thousands != command:
        return thousands
    for flag, size in SMALLER.items():
        command = re.sub(rf"(--(?:\w+\.)?{flag})=\d+", rf"\1={size}", command)
    return command


def put_backbone_weights(torch_home: Path) -> None:
    """Put weights where torchvision's download would put them; here there is no network."""
    import torch
    from torchvision.models import ResNet18_Weights, resnet18

    folder = torch_home / "hub/checkpoints"
    folder.mkdir(parents=True)
    name = ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(resnet18().state_dict(), folder / name)
