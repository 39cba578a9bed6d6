"""Commands to go on with, printed at the end of the one before: convert, train."""

from foundation.console import say_next
from positronic.cli.kinds import unused

CODECS = "@positronic.vendors.lerobot.codecs"
# The pictures of the small policy that needs no GPU.
SMALL = 64


def say_convert(recordings: str, fps: float, *, cameras: bool) -> None:
    """Print the command that converts recordings for a small policy.

    Args:
        recordings: The directory or S3 address of the raw episodes.
        fps: Their control rate.
        cameras: Whether they have images; otherwise they are from the simulator.
    """
    recordings = recordings.rstrip("/")
    codec = [f"--dataset.codec={CODECS}.eepose_state"]
    if cameras:
        codec = [
            f"--dataset.codec={CODECS}.eepose_absolute",
            f"--dataset.codec.image_size={SMALL}",
        ]
    say_next(
        *("positronic-to-lerobot", "convert", f"--dataset.dataset={recordings}", *codec),
        *(f"--fps={fps:g}", f"--output_dir={unused(f'{recordings}-lerobot')}"),
    )


def say_train(dataset: str, image_sizes: set[tuple[int, int]]) -> None:
    """Print the command that trains a policy for images of these sizes (height, width).

    Without a GPU a policy for small images, or none, trains in minutes; another one is full-size.
    """
    dataset = dataset.rstrip("/")
    folder, _, name = dataset.rpartition("/")
    runs = f"{folder}/checkpoints" if folder else "checkpoints"
    run_name = unused(f"{runs}/{name}").rpartition("/")[2]
    settings = ["--steps=50000", "--save_freq=10000"]
    if image_sizes <= {(SMALL, SMALL)}:
        small = ".act_64px" if image_sizes else ".act_state"
        settings = [f"--policy={small}", "--steps=6000", "--save_freq=2000"]
    say_next(
        *("python", "-m", "positronic.vendors.lerobot.train", f"--dataset_root={dataset}"),
        *(f"--output_dir={runs}", f"--run_name={run_name}", *settings),
    )
