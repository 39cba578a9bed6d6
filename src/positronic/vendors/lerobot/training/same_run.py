"""Whether a run that is to go on is still the same one."""

import json
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import PRETRAINED_MODEL_DIR

from positronic.errors import CheckpointError
from positronic.vendors.lerobot.training import config_file
from positronic.vendors.lerobot.training.job import TrainingJob

# Settings without which the batches, or the numbers made of them, would be others.
BINDING = ("batch_size", "seed", "devices", "precision", "accumulate", "compile", "val_split")


def require_same_run(job: TrainingJob, checkpoint: Path, config: PreTrainedConfig) -> None:
    """Refuse to go on with other settings than those the run was begun with.

    Raises:
        CheckpointError: naming each difference.
    """
    file = checkpoint / PRETRAINED_MODEL_DIR / "train_config.json"
    saved: dict[str, Any] = json.loads(file.read_text())
    pairs = {
        f"--policy.{name}": (saved["policy"].get(name), value)
        for name, value in draccus.encode(config, PreTrainedConfig).items()
        if name != "device"
    }
    own = job.run_dir / config_file.FILE_NAME
    kept = config_file.read(own) if own.is_file() else {}
    warmup = job.options.policy.warmup_steps
    pairs["--policy.warmup_steps"] = (kept.get("policy", {}).get("warmup_steps", warmup), warmup)
    before = {**saved, **kept}
    for name in BINDING:
        now = getattr(job.options, name)
        pairs[f"--{name}"] = (before.get(name, now), now)
    # Through JSON, as the saved side went.
    found = [
        f"{name} was {then} and is {now}"
        for name, (then, now) in json.loads(json.dumps(pairs)).items()
        if then != now
    ]
    if found:
        raise CheckpointError(
            f"{job.run_dir} cannot go on as something else: {'; '.join(found)}. "
            "Give the flags it was begun with, or begin another run"
        )
