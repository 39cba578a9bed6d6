"""Converters that ``conversion.py`` measures, each in a process of its own.

    python conversion_sides.py SIDE RAW VCODEC WORKERS

Each imports what it needs, says that it is ready, and converts the episodes in RAW to each
directory that it is given on its standard input. Nothing heavy is imported at the top: worker
processes import this module too.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from episodes import CAMERAS, FPS, SIZE

if TYPE_CHECKING:
    from foundation.video import Encoder

Convert = Callable[[Path], None]


def native(raw: Path, streaming: bool) -> Convert:
    """LeRobot's ``create``, ``add_frame``, ``save_episode``, ``finalize`` with its defaults."""
    from lerobot.datasets import LeRobotDataset

    from positronic.dataset import LocalDataset
    from positronic.vendors.lerobot import codecs
    from positronic.vendors.lerobot.conversion.resample import sample

    codec = codecs.eepose_absolute.instantiate()
    # Room for a whole episode: with the default of 30 the streaming encoder drops frames.
    options = {"streaming_encoding": True, "encoder_queue_maxsize": 1000} if streaming else {}

    def convert(output: Path) -> None:
        dataset = LeRobotDataset.create("local", FPS, codec.features, root=output, **options)
        for episode in LocalDataset(raw):
            columns = sample(episode, (*codec.inputs, *codec.action_inputs), FPS)
            rows = {**codec.encode_rows(columns), "action": codec.encode_action_rows(columns)}
            for values in zip(*rows.values(), strict=True):
                row = dict(zip(rows, values, strict=True))
                dataset.add_frame(row | {"task": episode.static["task"]})
            dataset.save_episode()
        dataset.finalize()

    return convert


def ours(raw: Path, vcodec: str, workers: int) -> Convert:
    """``positronic-to-lerobot convert``; LeRobot is imported already, as on the other sides."""
    import lerobot.datasets  # noqa: F401 - it is not to be imported while time is taken

    from positronic.dataset import LocalDataset
    from positronic.vendors.lerobot import codecs
    from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset

    codec = codecs.eepose_absolute.instantiate()
    options = Options(vcodec=vcodec, workers=workers)

    def convert(output: Path) -> None:
        convert_dataset(LocalDataset(raw), codec, output, FPS, options)

    return convert


def bare(raw: Path, vcodec: str, workers: int) -> Convert:
    """PyAV alone, in as many processes, started in the same way: the limit."""
    from foundation.worker_pool import worker_pool
    from positronic.vendors.lerobot.conversion.encoders import ENCODERS

    episodes = sorted(path.parent for path in raw.glob("*/*/meta.json"))

    def convert(output: Path) -> None:
        output.mkdir()
        with worker_pool(workers, _nothing) as pool:
            jobs = [(path, output, ENCODERS[vcodec]) for path in episodes]
            list(pool.map(_transcode, jobs))

    return convert


def _nothing() -> None:
    pass


def _transcode(job: "tuple[Path, Path, Encoder]") -> None:
    """Decode, resize and encode the cameras of an episode, with nothing else."""
    import av

    os.environ["SVT_LOG"] = "1"
    episode, output, encoder = job
    for camera in CAMERAS.values():
        name = str(output / f"{episode.name}-{camera}.mp4")
        with av.open(str(episode / f"{camera}.mp4")) as source, av.open(name, "w") as target:
            video = source.streams.video[0]
            video.codec_context.thread_count = 1
            stream: Any = target.add_stream(encoder.vcodec, FPS, options=encoder.options)
            stream.pix_fmt = encoder.pix_fmt
            stream.height, stream.width = SIZE
            stream.time_base = Fraction(1, FPS)
            for number, frame in enumerate(source.decode(video)):
                image = frame.to_ndarray(format="rgb24", height=SIZE[0], width=SIZE[1])
                resized = av.VideoFrame.from_ndarray(image, format="rgb24")
                resized.pts, resized.time_base = number, Fraction(1, FPS)
                target.mux(stream.encode(resized))
            target.mux(stream.encode(None))


def main() -> None:
    """Convert whenever told to, and say what it took."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    side, raw, vcodec, workers = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    sides: dict[str, Callable[[], Convert]] = {
        "default": lambda: native(raw, streaming=False),
        "streaming": lambda: native(raw, streaming=True),
        "ours": lambda: ours(raw, vcodec, workers),
        "bare": lambda: bare(raw, vcodec, workers),
    }
    convert = sides[side]()
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        convert(Path(json.loads(line)))
        answer = {"seconds": time.perf_counter() - wall, "cpu": sum(os.times()[:4]) - cpu}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
