"""Benchmark: video encoders from which the default of conversion was chosen.

Encoding is timed in one thread with `VideoWriter`, reading by LeRobot's own ``decode_video_frames``
at random times, a call for each frame, as in training.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from episodes import CAMERAS, FPS

CLIPS = 2  # episodes
READS = 80
NOISE = 4.0  # standard deviation of what a camera adds, of 255


def encoders() -> dict[str, Any]:
    """The encoders of the table by name; the first is LeRobot's default."""
    from foundation.video import Encoder
    from positronic.vendors.lerobot.conversion.encoders import ENCODERS

    def x264(preset: str, crf: int, g: int) -> Encoder:
        settings = {"preset": preset, "crf": str(crf), "g": str(g), "bf": "0", "threads": "1"}
        return Encoder("h264", "yuv420p", settings)

    def av1(g: int) -> Encoder:
        default = ENCODERS["libsvtav1"]
        return Encoder(default.vcodec, default.pix_fmt, default.options | {"g": str(g)})

    found = {f"SVT-AV1 12, crf 30, g={g}": av1(g) for g in (2, 10)}
    for preset, crf, g in (
        ("medium", 23, 2),
        ("veryfast", 23, 2),
        ("veryfast", 20, 2),
        ("superfast", 23, 2),
        ("ultrafast", 20, 2),
        ("ultrafast", 23, 2),
        ("ultrafast", 25, 1),
        ("ultrafast", 25, 2),
        ("ultrafast", 25, 5),
        ("ultrafast", 25, 30),
        ("ultrafast", 28, 2),
    ):
        found[f"x264 {preset}, crf {crf}, g={g}"] = x264(preset, crf, g)
    return found


def compare_codecs(raw: Path) -> None:
    """Print the table; in a process that finds FFmpeg's libraries for torchcodec in PyAV's."""
    import av

    libraries = Path(av.__file__).parents[1] / "av.libs"
    names = raw.parent / "ffmpeg"
    names.mkdir()
    for library in libraries.glob("lib*.so*"):
        # libavutil-1a2b3c4d.so.59.39.100 is what others call libavutil.so.59
        stem, _, version = library.name.partition(".so.")
        plain = f"{stem.rpartition('-')[0]}.so.{version.split('.')[0]}"
        if not (names / plain).exists():
            (names / plain).symlink_to(library)
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{names}:{libraries}", "SVT_LOG": "1"}
    subprocess.run([sys.executable, __file__, str(raw)], env=environment, check=True)


def clips(raw: Path, noise: float) -> list[np.ndarray[Any, Any]]:
    """The pictures of some cameras, ``(T, H, W, 3)`` each."""
    from positronic.dataset import LocalDataset

    rng = np.random.default_rng(0)
    found = []
    for episode in LocalDataset(raw)[:CLIPS]:
        for camera in CAMERAS.values():
            images = np.stack(list(episode.signals[camera].values()))
            if noise:
                noisy = images + rng.normal(0, noise, images.shape).astype(np.float32)
                images = np.clip(noisy, 0, 255).astype(np.uint8)
            found.append(images)
    return found


def encode(videos: list[np.ndarray[Any, Any]], folder: Path, encoder: Any) -> float:
    """Write a file for each clip; CPU milliseconds a picture."""
    from positronic.vendors.lerobot.conversion.video import VideoWriter

    started = time.process_time()
    for number, images in enumerate(videos):
        with VideoWriter(folder / f"{number}.mp4", FPS, encoder) as writer:
            for image in images:
                writer.add(image)
    return 1e3 * (time.process_time() - started) / sum(len(images) for images in videos)


def psnr(videos: list[np.ndarray[Any, Any]], folder: Path) -> float:
    """Of all pictures of all clips, in dB."""
    from positronic.dataset.decoder import Decoder

    errors = []
    for number, images in enumerate(videos):
        decoder = Decoder(folder / f"{number}.mp4")
        for index, image in enumerate(images):
            errors.append(np.square(decoder.frame(index).astype(np.int32) - image).mean())
    return 10 * float(np.log10(255**2 / np.mean(errors)))


def read(video: Path, frames: int, backend: str) -> float:
    """CPU milliseconds for a picture at a random time; NaN where the backend does not work."""
    from lerobot.datasets.video_utils import decode_video_frames

    order = np.random.default_rng(1).integers(0, frames, READS)
    try:
        decode_video_frames(video, [0.0], 1e-4, backend, return_uint8=True)
    except (RuntimeError, ImportError):
        return float("nan")
    started = time.process_time()
    for index in order:
        decode_video_frames(video, [float(index / FPS)], 1e-4, backend, return_uint8=True)
    return 1e3 * (time.process_time() - started) / READS


def main() -> None:
    """Print the table for the raw episodes named."""
    import torch

    torch.set_num_threads(1)
    raw = Path(sys.argv[1])
    clean, noisy = clips(raw, 0.0), clips(raw, NOISE)
    print("\n| encoder | encode, ms | torchcodec, ms | PyAV, ms | kB | PSNR, dB ", end="")
    print("| noisy: encode, ms | kB | PSNR, dB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, encoder in encoders().items():
        columns = [name]
        for number, videos in enumerate((clean, noisy)):
            # Of its own, because LeRobot keeps decoders open by the name of the file.
            folder = raw.parent / f"{name} {number}"
            folder.mkdir()
            spent = encode(videos, folder, encoder)
            count = sum(len(images) for images in videos)
            size = sum(file.stat().st_size for file in folder.iterdir()) / count / 1e3
            columns.append(f"{spent:.2f}")
            if videos is clean:
                for backend in ("torchcodec", "pyav"):
                    columns.append(f"{read(folder / '1.mp4', len(videos[1]), backend):.2f}")
            columns += [f"{size:.2f}", f"{psnr(videos, folder):.2f}"]
        print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
