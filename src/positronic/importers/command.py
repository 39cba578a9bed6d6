"""Program ``positronic-import``: a subcommand for each kind of recording."""

from pathlib import Path
from typing import Any, NoReturn

import configuronic as cfn

from foundation import storage
from foundation.errors import MissingDependency, StorageError, UsageError
from foundation.text import printable


@cfn.config()
def aloha(
    source: str,
    output_dir: str | None = None,
    fps: float | None = None,
    task: str | None = None,
    signals: Any = None,
    bgr: bool = False,
    resume: bool = False,
    inspect: bool = False,
) -> int:
    """Import episodes of ALOHA or ACT, HDF5 files of one arm or two, as raw episodes.

    Joints, grippers, efforts, targets and cameras are kept, raw or JPEG. A file that cannot be read
    is named and left out, and the exit status is 1.

    Example:
        positronic-import aloha EPISODES --output_dir=RAW --task='Open the drawer.'

    Args:
        source: A file, or a directory with episode_0.hdf5 and so on; local or s3://bucket/key.
        output_dir: The dataset to write, local or s3://bucket/key; must be new or empty unless
            --resume.
        fps: Rows per second, which the files do not say; 50 if not given, as in ACT.
        task: What the robot was to do, in words.
        signals: Other names of signals, as in {image.cam_high: image.front}; None leaves one out.
        bgr: Whether pictures are blue, green, red: if reds look blue in what was imported.
        resume: Go on with an import that was interrupted, or add new episodes.
        inspect: Only list what the files hold, and what it becomes.
    """
    from positronic.importers.aloha import Aloha

    if fps is not None and not 0 < fps <= 1000:
        raise UsageError(f"--fps={fps:g}: expected rows per second, up to 1000")
    return _run(
        Aloha.at(_fetched(source), fps, bgr=bgr), output_dir, task, signals, resume, inspect
    )


def _fetched(source: str) -> Path:
    path = storage.fetch(source) if storage.is_remote(source) else storage.local(source)
    if not path.exists():
        raise StorageError(f"nothing is at {source}; check the path")
    return path


def _run(
    source: Any, output_dir: str | None, task: str | None, signals: Any, resume: bool, inspect: bool
) -> int:
    try:
        from positronic.importers.job import Wanted, import_source
        from positronic.importers.job import inspect as show
    except ImportError as error:
        raise MissingDependency(
            f"{error.name} is not installed; pip install 'positronic-lightning[data]'"
        ) from error
    if output_dir is None and not inspect:
        raise UsageError("still needed: --output_dir=..., or --inspect=True")
    wanted = Wanted(output_dir or "", task, _pairs(signals), resume)
    if inspect:
        show(source, wanted)
        return 0
    return import_source(source, wanted)


def _pairs(signals: Any) -> dict[str, str | None]:
    """The names in ``{from: to, from: null}``, as a flag has it."""
    found: dict[str, str | None] = {}
    pairs: list[tuple[Any, ...]]
    if isinstance(signals, dict):
        pairs = list(signals.items())
    else:
        text = "" if signals is None else str(signals).strip().removeprefix("{").removesuffix("}")
        pairs = [tuple(pair.split(":", 1)) for pair in text.split(",") if pair.strip()]
    for pair in pairs:
        if len(pair) != 2:
            raise UsageError(
                f"--signals={printable(signals, 200)}: expected pairs, as in "
                "--signals='{image.cam_high: image.top}'"
            )
        name, wanted = (None if part is None else str(part).strip() for part in pair)
        found[str(name)] = None if wanted in (None, "", "null", "None") else wanted
    return found


def main() -> NoReturn:
    """Run ``positronic-import``."""
    from positronic import cli
    from positronic.importers.robomimic import robomimic
    from positronic.importers.sample import robomimic_sample

    commands = {"aloha": aloha, "robomimic": robomimic, "robomimic-sample": robomimic_sample}
    cli.run(commands, "positronic-import")
