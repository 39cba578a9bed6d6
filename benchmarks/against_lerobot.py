"""Conversion and batches against LeRobot's own code, side by side in one run.

    python benchmarks/against_lerobot.py [--episodes=8]

Prints a table of processor seconds, which steady themselves on a shared machine, and the ratio.
Both sides read the same raw episodes through the same codec, and both ends are loaded again by
``LeRobotDataset``. Worker processes are not used, so that all work is in this process's clock.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from torch.utils.data import DataLoader, default_collate

from getiaction.data import LeRobotDataModule
from getiaction.data.frames import video_backend
from getiaction.policies.lerobot import policy_config
from positronic.codec import Codec
from positronic.data_collection import record
from positronic.dataset import Dataset, load_all_datasets
from positronic.simulator.demonstrations import Scenario
from positronic.vendors.lerobot import codecs, presets
from positronic.vendors.lerobot.conversion import Options, convert_dataset
from positronic.vendors.lerobot.resample import sample

FPS = 15


def cpu(work: Callable[[], Any]) -> float:
    """Processor seconds of this process, its threads and its finished children."""
    before = time.process_time() + sum(os.times()[2:4])
    work()
    return time.process_time() + sum(os.times()[2:4]) - before


def convert_natively(dataset: Dataset, codec: Codec, root: Path, streaming: bool) -> None:
    """Convert with LeRobot's ``add_frame`` and ``save_episode``."""
    native = LeRobotDataset.create(
        "local/native",
        FPS,
        codec.features,
        root=root,
        use_videos=True,
        rgb_encoder=RGBEncoderConfig(vcodec="h264"),
        streaming_encoding=streaming,
    )
    for episode in dataset:
        columns = sample(episode, (*codec.inputs, *codec.action_inputs), FPS)
        names = list(columns)
        for row in zip(*(columns[name] for name in names), strict=True):
            obs = dict(zip(names, row, strict=True))
            frame = {**codec.encode(obs), "action": codec.encode_action(obs)}
            native.add_frame({**frame, "task": episode.static["task"]})
        native.save_episode()
        av.logging.set_libav_level(av.logging.WARNING)  # it reports every file that it finishes
    native.finalize()


def native_batches(root: Path, preset: Any, batch_size: int) -> Iterator[Any]:
    """Batches as a plain DataLoader over LeRobotDataset gives them."""
    config = policy_config(preset.name, preset.fields)
    meta = LeRobotDatasetMetadata("local/native", root=root, revision="local")
    dataset = LeRobotDataset(
        "local/native",
        root=root,
        revision="local",
        delta_timestamps=resolve_delta_timestamps(config, meta),
        return_uint8=True,
        video_backend=video_backend(),
    )
    return iter(DataLoader(dataset, batch_size, shuffle=True, collate_fn=default_collate))


def our_batches(root: Path, preset: Any, batch_size: int) -> Iterator[Any]:
    """Batches of our data module; the dataset is read into memory first."""
    data = LeRobotDataModule(root=root, train_batch_size=batch_size)
    data.prepare(policy_config(preset.name, preset.fields))
    return iter(data.train_dataloader())


def compare(kind: str, raw: Dataset, codec: Codec, preset: Any, folder: Path) -> None:
    """Print the rows of the table for one codec."""
    ours_root, native_root = folder / f"{kind}-ours", folder / f"{kind}-native"
    options = Options(workers=0)
    ours = cpu(lambda: convert_dataset(raw, codec, ours_root, FPS, options))
    native = cpu(lambda: convert_natively(raw, codec, native_root, streaming=False))
    row(f"convert, {kind}: LeRobot's writer", native, ours)
    if "video" in {feature["dtype"] for feature in codec.features.values()}:
        streamed = cpu(lambda: convert_natively(raw, codec, folder / f"{kind}-s", streaming=True))
        row(f"convert, {kind}: LeRobot's writer, streaming", streamed, ours)
    size, count = preset.batch_size, 4
    theirs_it = native_batches(native_root, preset, size)
    ours_it = our_batches(ours_root, preset, size)
    theirs_s = cpu(lambda: list(islice(theirs_it, count))) / count
    row(f"batch of {size}, {kind}", theirs_s, cpu(lambda: list(islice(ours_it, count))) / count)


def row(name: str, theirs: float, ours: float) -> None:
    """Print one row."""
    print(f"| {name} | {theirs:.4f} | {ours:.4f} | {theirs / ours:.1f} |", flush=True)


def main() -> None:
    """Record a few demonstrations and compare on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", default=8, type=int)
    count = parser.parse_args().episodes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(Scenario("stack_cubes"), folder / "raw", episodes=count)
        raw = load_all_datasets(folder / "raw")
        state = codecs.eepose_state.instantiate(), presets.act_state.instantiate()
        images = codecs.eepose_absolute.instantiate(), presets.act_64px.instantiate()
        print(f"\n{count} episodes, {FPS} rows a second\n")
        print("| what | LeRobot, CPU-s | here, CPU-s | times faster |\n|---|---|---|---|")
        compare("state", raw, *state, folder)
        compare("two 224x224 cameras", raw, *images, folder)


if __name__ == "__main__":
    main()
