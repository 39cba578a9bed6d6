"""``positronic-to-lerobot``: raw episodes to a LeRobot dataset."""

import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import configuronic as cfn

from positronic import cli
from positronic.cfg import ds
from positronic.codec import Codec
from positronic.dataset import Dataset
from positronic.errors import UsageError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import Options, convert_dataset

PROG = "positronic-to-lerobot"


@dataclass(frozen=True)
class Source:
    """Raw episodes and the codec they go through."""

    dataset: Dataset
    codec: Codec


@cfn.config(dataset=ds.local)
def apply_codec(dataset: Any, codec: Any) -> Source:
    """Raw episodes, and the codec that makes features of them.

    Args:
        dataset: The raw episodes.
        codec: Such as @positronic.vendors.lerobot.codecs.eepose_absolute.
    """
    if not isinstance(codec, Codec):
        names = ", ".join(f"@{codecs.__name__}.{name}" for name in codecs.__all__)
        raise UsageError(f"--dataset.codec={codec!r} is not a codec; there are {names}")
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"--dataset.dataset={dataset!r} is not a dataset; try @{ds.__name__}.local"
        )
    return Source(dataset, codec)


@cfn.config(dataset=apply_codec)
def convert(
    dataset: Source,
    output_dir: str,
    fps: int,
    task: str | None = None,
    video: bool = True,
    workers: int | None = None,
    vcodec: str = "h264",
    robot_type: str | None = None,
) -> int:
    """Convert raw episodes to a LeRobot v3.0 dataset, with the contract inside.

    An episode that cannot be converted is named and left out; the others are converted.

    Args:
        dataset: Raw episodes and codec.
        output_dir: The dataset's directory; must not exist.
        fps: Rows per second, a whole number.
        task: What the robot was to do, instead of what each episode says.
        video: Store images as video; otherwise as PNG pictures.
        workers: Processes that encode; by default one per processor where there are images.
        vcodec: h264, or libsvtav1 for smaller files that take longer.
        robot_type: Written into the dataset, instead of what the episodes say.
    """
    options = Options(task=task, video=video, workers=workers, vcodec=vcodec, robot_type=robot_type)
    report = convert_dataset(dataset.dataset, dataset.codec, output_dir, fps, options)
    for line in report.warnings():
        print(line, file=sys.stderr)
    print(report.summary())
    return 0


def main() -> NoReturn:
    """Run the command line."""
    cli.run({"convert": convert}, PROG)


if __name__ == "__main__":
    main()
