import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from positronic.dataset import DiskEpisode, VideoSignal
from positronic.dataset import video as video_module
from positronic.dataset.decoder import Decoder
from positronic.errors import EpisodeError

from .conftest import number_of, picture, record

COUNT = 100


@pytest.fixture
def signal(tmp_path: Path) -> VideoSignal:
    return opened(record(tmp_path, frames=COUNT))


def opened(episode: Path) -> VideoSignal:
    signal = DiskEpisode(episode)["image.wrist"]
    assert isinstance(signal, VideoSignal)
    return signal


def test_shape_without_decoding(signal: VideoSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "frame", None)
    assert (signal.kind, signal.dtype, signal.shape) == ("video", np.dtype(np.uint8), (48, 64, 3))
    assert (len(signal), signal.start_ts, signal.last_ts) == (COUNT, 0, 6_600_000_000)


def test_frames_in_any_order(signal: VideoSignal) -> None:
    order = np.random.default_rng(0).permutation(COUNT)[:40]
    assert [number_of(signal[int(i)][0]) for i in order] == order.tolist()


def test_colours_stay(signal: VideoSignal) -> None:
    image, _ = signal[70]
    # Colour is stored for two by two pixels and the frame is compressed: close, not equal.
    assert np.abs(image.astype(int) - picture(70)).mean() < 2.0


@pytest.mark.parametrize("indices", [[0, 1, 2], [5, 40, 95], [90, 3, 4], [7, 7, 7], [99]])
def test_frames_equal_single_images(signal: VideoSignal, indices: list[int]) -> None:
    for index, image in zip(indices, signal.frames(indices), strict=True):
        np.testing.assert_array_equal(image, signal.image(index))


def test_frames_decode_each_once(signal: VideoSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = Decoder.frame

    def counted(self: Decoder, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        decoded.append(index)
        return decode(self, index)

    monkeypatch.setattr(Decoder, "frame", counted)
    assert len(list(signal.frames([3, 3, 3, 9, 9, 30]))) == 6
    assert decoded == [3, 9, 30]
    assert len(list(signal.frames())) == COUNT


def test_two_iterations_do_not_disturb_each_other(signal: VideoSignal) -> None:
    for i, (a, b) in enumerate(zip(signal.frames(), signal.frames(range(50, 100)), strict=False)):
        assert (number_of(a), number_of(b)) == (i, 50 + i)
        assert number_of(signal.image(99 - i)) == 99 - i


def test_iterating_leaves_no_file_open(signal: VideoSignal) -> None:
    gc.disable()  # a decoder is part of a cycle, and its memory is not Python's
    try:
        before = len(os.listdir("/proc/self/fd"))
        assert sum(1 for _ in signal.frames()) == COUNT
        next(signal.frames())
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_sequential_reading_does_not_seek(
    signal: VideoSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decoder, "_seek", None)
    assert [number_of(f) for f in signal.frames(range(0, COUNT, 7))] == list(range(0, COUNT, 7))


def test_far_ahead_it_seeks(signal: VideoSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[int] = []
    seek = Decoder._seek

    def noted(self: Decoder, index: int) -> None:
        sought.append(index)
        seek(self, index)

    monkeypatch.setattr(Decoder, "_seek", noted)
    assert [number_of(signal.image(i)) for i in (0, 30, 31, 80, 79)] == [0, 30, 31, 80, 79]
    assert sought == [80, 79]


def test_values_are_lazy(signal: VideoSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    values = signal.time[0:6_600_000_000:200_000_000].values()
    assert len(values) == 33
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "frame", None)
        tail = values[10:]
    assert number_of(tail[0]) == 30
    assert [number_of(v) for v in values[[0, 2]]] == [0, 6]
    stacked = np.asarray(values[:4])
    assert (stacked.shape, stacked.dtype) == ((4, 48, 64, 3), np.dtype(np.uint8))
    assert [number_of(v) for v in stacked] == [0, 3, 6, 9]


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (47, 63), (1, 1)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    signal = opened(record(tmp_path, frames=3, size=size))
    assert signal.shape == (*size, 3)
    image, _ = signal[2]
    assert image.shape == (*size, 3)
    assert np.abs(image.astype(int) - picture(2, *size)).mean() < 4.0
    assert next(signal.frames([1])).shape == (*size, 3)


def test_travels_to_another_process(signal: VideoSignal) -> None:
    signal.image(50)
    copy = pickle.loads(pickle.dumps(signal))
    assert number_of(copy.image(20)) == 20


def test_open_files_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path, frames=2)
    monkeypatch.setattr(video_module, "MAX_OPEN", 3)
    video_module._open.clear()
    signals = [opened(path) for _ in range(6)]
    for signal in signals:
        signal.image(0)
    assert [s._decoder is not None for s in signals] == [False] * 3 + [True] * 3
    assert number_of(signals[0].image(1)) == 1


def test_index_longer_than_the_video(tmp_path: Path) -> None:
    path = record(tmp_path, frames=5)
    index = path / "image.wrist.frames.parquet"
    pq.write_table(pa.table({"ts_ns": np.arange(9)}), index)
    signal = opened(path)
    assert len(signal) == 9
    with pytest.raises(EpisodeError, match=r"'image.wrist'.*lists 9 frames.*holds 5.*restore"):
        signal[0]


@pytest.mark.parametrize("missing", ["image.wrist.mp4", "image.wrist.frames.parquet"])
def test_one_of_the_two_files_missing(tmp_path: Path, missing: str) -> None:
    path = record(tmp_path, frames=3)
    (path / missing).unlink()
    episode = DiskEpisode(path)
    assert len(episode["grip"]) == 3
    with pytest.raises(EpisodeError, match=f"'image.wrist'.*{missing} is missing"):
        episode["image.wrist"][0]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_video(tmp_path: Path, keep: float) -> None:
    path = record(tmp_path, frames=30)
    file = path / "image.wrist.mp4"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(EpisodeError, match=r"signal 'image.wrist': .*restore the file"):
        opened(path)[0]


def test_damage_that_decodes_is_noticed(tmp_path: Path) -> None:
    path = record(tmp_path, frames=30)
    file = path / "image.wrist.mp4"
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0x55
    file.write_bytes(content)
    with pytest.raises(EpisodeError, match="is not the file that was recorded"):
        next(opened(path).frames())


def test_damage_in_a_file_without_checksum(tmp_path: Path) -> None:
    import av

    path = record(tmp_path, frames=30)
    index = path / "image.wrist.frames.parquet"
    pq.write_table(pq.read_table(index).replace_schema_metadata(None), index)
    file = path / "image.wrist.mp4"
    with av.open(str(file)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        end, half = packets[3].pos + packets[3].size, packets[3].size // 2
    content = bytearray(file.read_bytes())
    content[end - half : end] = bytes(half)
    file.write_bytes(content)
    images = opened(path).frames()
    assert [number_of(next(images)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(EpisodeError, match="signal 'image.wrist': frame 3 is damaged"):
        next(images)
    with pytest.raises(EpisodeError, match="frame 3 is damaged"):
        opened(path)[7]  # drawn on top of frame 3
