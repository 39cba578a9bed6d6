"""``positronic-to-lerobot``: make LeRobot datasets of raw episodes; check, describe, push them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import configuronic as cfn

from foundation import storage
from foundation.console import say_made
from getiaction.roots import INFO
from positronic import cli
from positronic.cfg import ds
from positronic.cfg.components import CODEC, DATASET
from positronic.cli.components import Component
from positronic.cli.flags import Flags
from positronic.cli.following import say_train
from positronic.codec import Codec
from positronic.dataset import Dataset
from positronic.errors import DatasetError
from positronic.vendors.lerobot import codecs, pushing
from positronic.vendors.lerobot.conversion.append import append_dataset
from positronic.vendors.lerobot.conversion.pipeline import convert_dataset
from positronic.vendors.lerobot.conversion.report import Options, Report
from positronic.vendors.lerobot.pushing import Destination
from positronic.vendors.lerobot.verification.info import info
from positronic.vendors.lerobot.verification.verify import verify, verify_dataset

PROG = "positronic-to-lerobot"


@dataclass(frozen=True)
class Source:
    """Raw episodes and the codec that converts them."""

    dataset: Dataset
    codec: Codec


@cfn.config(dataset=ds.local)
def apply_codec(dataset: Annotated[Any, DATASET], codec: Annotated[Any, CODEC]) -> Source:
    """Raw episodes, and the codec that makes features of them.

    Args:
        dataset: The raw episodes, a config or simply a path.
        codec: What makes features of them; --codec is the same flag.
    """
    codec = codecs.require_codec(codec, "dataset.codec")
    return Source(ds.opened(dataset), codec)


SOURCE = Component(
    "pair of dataset and codec",
    (),
    lambda value: isinstance(value, Source),
    lambda text: apply_codec.override(dataset=DATASET.parse("dataset", text)),
    "a path to raw episodes",
)


@cfn.config(dataset=apply_codec)
def convert(
    dataset: Annotated[Source, SOURCE],
    output_dir: str,
    fps: int,
    task: str | None = None,
    video: bool = True,
    workers: int | None = None,
    vcodec: str = "h264",
    robot_type: str | None = None,
    share: float = 1.0,
    seed: int = 42,
    resume: bool = False,
    push_to_hub: str | None = None,
    private: bool = True,
) -> int:
    """Convert raw episodes to a LeRobot v3.0 dataset, with the contract inside.

    An episode that cannot be converted is named and left out; the others are converted. Whatever
    stops the work, those that are done are kept: the same command with --resume=True goes on.

    Example:
        positronic-to-lerobot convert --dataset.dataset=RAW --codec=.eepose_state --fps=15
            --output_dir=DATASET

    Args:
        dataset: Raw episodes and codec.
        output_dir: The dataset's directory or s3://bucket/key; must not exist.
        fps: Rows per second, a whole number.
        task: What the robot was to do, instead of what each episode says.
        video: Store images as video; otherwise as PNG pictures.
        workers: Processes that encode, 0 for none but this; by default one per processor where
            there are images.
        vcodec: h264, or libsvtav1 for smaller files that take longer.
        robot_type: Written into the dataset, instead of what the episodes say.
        share: Part of the episodes that is converted, such as 0.1, chosen at random.
        seed: Of that choice.
        resume: Go on with an unfinished conversion to the same place.
        push_to_hub: USER/NAME: at the end verify the dataset, and push it to the Hugging Face Hub.
        private: Whether only its owner sees that repository, if it is made anew.
    """
    to = None
    if push_to_hub is not None:
        to = Destination(pushing.DATASET, push_to_hub, private=private, flag="push_to_hub")
    SOURCE.require(dataset, "dataset")
    options = Options(task, video, workers, vcodec, robot_type, share, seed, resume)
    with _notes():
        report = convert_dataset(dataset.dataset, dataset.codec, output_dir, fps, options)
    status = _end(report, "converted", dataset.codec)
    if to is not None:
        _push(output_dir, to, workers)
    return status


@cfn.config(dataset=apply_codec)
def append(
    dataset: Annotated[Source, SOURCE],
    output_dir: str,
    fps: int | None = None,
    task: str | None = None,
    workers: int | None = None,
    share: float = 1.0,
    seed: int = 42,
    resume: bool = False,
) -> int:
    """Append raw episodes to a dataset that convert made, with the same codec.

    Recordings that are in it already are skipped. Readers find the old dataset or the new, whole.

    Example:
        positronic-to-lerobot append --dataset.dataset=MORE --codec=.eepose_state
            --output_dir=DATASET

    Args:
        dataset: Raw episodes and codec.
        output_dir: The dataset's directory or s3://bucket/key.
        fps: Rows per second, if you want it checked; the dataset says it.
        task: What the robot was to do, instead of what each episode says.
        workers: Processes that encode, 0 for none but this; by default one per processor where
            there are images.
        share: Part of the episodes that is appended, such as 0.1, chosen at random.
        seed: Of that choice.
        resume: Go on with an unfinished append to the same dataset.
    """
    SOURCE.require(dataset, "dataset")
    options = Options(task, workers=workers, share=share, seed=seed, resume=resume)
    with _notes():
        report = append_dataset(dataset.dataset, dataset.codec, output_dir, options, fps=fps)
    return _end(report, "appended", dataset.codec)


@contextmanager
def _notes() -> Iterator[None]:
    """Print the notes of an error, such as how to resume."""
    try:
        yield
    except BaseException as error:
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        raise


def _end(report: Report, verb: str, codec: Codec) -> int:
    for line in report.warnings():
        print(line, file=sys.stderr)
    print(report.summary(verb))
    say_made("dataset", report.output_dir)
    images = (f["shape"] for f in codec.features.values() if f["dtype"] == "video")
    say_train(report.output_dir, {(height, width) for height, width, _ in images})
    return 0


@cfn.config()
def push(directory: str, repo_id: str, private: bool = True) -> None:
    """Push a LeRobot dataset or a policy to the Hugging Face Hub.

    HF_TOKEN, or what `hf auth login` keeps, says as whom. The repository is made if it is not
    there; what an earlier push left there is replaced, the card as well.

    Args:
        directory: A converted dataset, which verify should have found valid; or a training run, a
            checkpoint or its pretrained_model.
        repo_id: USER/NAME.
        private: Whether only its owner sees the repository, if it is made anew.
    """
    root = storage.fetch(directory)
    if (root / INFO).is_file():
        Destination(pushing.DATASET, repo_id, private=private).push(root, directory)
        return
    from getiaction.policies.lerobot.sources import native_checkpoint

    policy = native_checkpoint(root)  # before anybody is asked for a token
    Destination(pushing.POLICY, repo_id, private=private).push(policy, directory)


def _push(output_dir: str, to: Destination, workers: int | None) -> None:
    root = storage.fetch(output_dir)
    verdict = verify_dataset(root, workers=None if workers is None else max(workers, 1))
    if verdict.faults:
        raise DatasetError(f"{verdict.summary(output_dir)}, so it was not pushed; run verify")
    to.push(root, output_dir)


def prepare(config: cfn.Config, flags: Flags) -> tuple[cfn.Config, Flags]:
    """Take ``--codec``, as training and the server call it, for ``--dataset.codec``."""
    if config not in (convert, append):
        return config, flags
    renamed = (
        (f"dataset.{name}" if name.partition(".")[0] == "codec" else name, value)
        for name, value in flags.items
    )
    return config, Flags(tuple(renamed))


COMMANDS = {"convert": convert, "append": append, "verify": verify, "info": info, "push": push}


def main() -> NoReturn:
    """Run the command line."""
    cli.run(COMMANDS, PROG, prepare=prepare)


if __name__ == "__main__":
    main()
