"""Lightning's ``.ckpt`` of a `LeRobotPolicy`, unpacked as LeRobot's ``pretrained_model``."""

import atexit
import json
import shutil
import tempfile
from pathlib import Path

from getiaction.errors import GetiactionError
from positronic.errors import CheckpointError
from positronic.vendors.lerobot.serving.untold import TRAIN_CONFIG

SUFFIX = ".ckpt"


def unpack(path: Path, model: str, *, trusted: bool = False) -> Path:
    """Return a directory that holds ``<name of the file>/<model>``; takes seconds.

    It is removed when the process ends.

    Raises:
        CheckpointError: The file cannot be read, or loading it would be unsafe.
    """
    from getiaction.policies.lerobot import LeRobotPolicy

    try:
        policy = LeRobotPolicy.from_pretrained(path, trust_checkpoint=trusted)
    except GetiactionError as error:
        raise CheckpointError(str(error)) from error
    folder = Path(tempfile.mkdtemp(prefix="positronic-ckpt-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / path.stem / model
    policy.save_pretrained(target)
    (target / TRAIN_CONFIG).write_text(json.dumps({"dataset": {"fps": policy.dataset_fps}}))
    return folder
