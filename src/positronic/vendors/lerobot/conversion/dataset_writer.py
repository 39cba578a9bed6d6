"""LeRobot v3.0 dataset writer for encoded episodes (LeRobot 0.6.1).

The layout, schemas and metadata are LeRobot's own: its metadata class writes ``meta/``. This module
replaces the parts of LeRobot's writer that are slow, inexact or not crash-safe: rows are written to
parquet as whole columns, videos are already encoded, each video file is concatenated once, from
parts that are kept, and statistics are those of all rows, where LeRobot's writer takes the mean of
the episodes' quantiles.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion.encode_episode import EncodedEpisode
from positronic.vendors.lerobot.conversion.video import join
from positronic.vendors.lerobot.dataset import statistics, totals

MEBIBYTE = 2**20
# LeRobot compares times of frames and rows as float32, to 1e-4 s. From 1024 s on float32 is coarser
# than that, and it rejects some frames of a file with several long episodes.
LONGEST_VIDEO_S = 1000.0
# Number of episodes whose metadata is buffered and written together.
METADATA_BUFFER = 100


class LeRobotWriter:
    """Adds episodes to a dataset: `create` starts a new one, `extend` continues one.

    ``video_encoder`` is LeRobot's ``RGBEncoderConfig``, recorded in ``info.json``, or None without
    videos.
    """

    def __init__(
        self,
        meta: Any,
        video_encoder: Any,
        pixels: Mapping[str, statistics.PixelCounts] | None = None,
    ) -> None:
        from lerobot.datasets.feature_utils import get_hf_features_from_features

        self._root: Path = meta.root
        self._meta = meta
        self._video_encoder = video_encoder
        self._schema = get_hf_features_from_features(meta.features).arrow_schema
        self._table_writer: Any = None
        self._table_file = (0, 0)
        self._parts: dict[str, list[Path]] = {}
        self._video_files: dict[str, tuple[int, int]] = {}
        self._video_bytes: dict[str, int] = {}
        self._video_frames: dict[str, int] = {}
        self._pixels = dict(pixels or {})
        self._moments: dict[str, statistics.Statistics] = {
            key: meta.stats[key] for key in self._pixels
        }

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        features: dict[str, dict[str, Any]],
        fps: int,
        robot_type: str | None,
        video_encoder: Any,
    ) -> Self:
        """Create a dataset in the directory ``root``, which must not exist.

        ``features`` are LeRobot feature dicts without LeRobot's own columns.
        """
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

        meta = LeRobotDatasetMetadata.create(
            repo_id="local",
            fps=fps,
            features=features,
            robot_type=robot_type,
            root=root,
            use_videos=video_encoder is not None,
            metadata_buffer_size=METADATA_BUFFER,
        )
        return cls(meta, video_encoder)

    @classmethod
    def extend(
        cls, root: Path, *, video_encoder: Any, pixels: Mapping[str, statistics.PixelCounts]
    ) -> Self:
        """Continue the finished dataset in ``root``; new episodes are written to new files.

        ``pixels`` are the pixel counts of the existing episodes, by camera. Of the existing files,
        only those directly in ``meta/`` are rewritten.
        """
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

        meta = LeRobotDatasetMetadata("local", root=root, metadata_buffer_size=METADATA_BUFFER)
        writer = cls(meta, video_encoder, pixels)
        last = meta.episodes[-1]
        writer._table_file = writer._next(_file_of(last, "data"))
        for key in meta.video_keys:
            writer._video_files[key] = writer._next(_file_of(last, f"videos/{key}"))
        return writer

    @property
    def episodes(self) -> int:
        """Number of episodes added."""
        return int(self._meta.info.total_episodes)

    @property
    def frames(self) -> int:
        """Number of rows added."""
        return int(self._meta.info.total_frames)

    @property
    def stats(self) -> dict[str, statistics.Statistics]:
        """Statistics of the whole dataset, once it is finished."""
        return self._meta.stats or {}

    @property
    def pixels(self) -> dict[str, statistics.PixelCounts]:
        """Pixel counts of all episodes, by camera."""
        return self._pixels

    def add(self, episode: EncodedEpisode) -> None:
        """Append an episode. Its video files are read when the dataset is finished."""
        index, first = self.episodes, self.frames
        self._meta.save_episode_tasks([episode.task])
        frame = np.arange(episode.length)
        columns = {
            **episode.columns,
            "timestamp": (frame / self._meta.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(episode.length, index),
            "index": first + frame,
            "task_index": np.full(episode.length, self._meta.get_task_index(episode.task)),
        }
        # In the order of the features, so that two conversions give the same bytes.
        stats = {
            name: episode.stats.get(name) or statistics.of_vectors(columns[name])
            for name in self._meta.features
        }
        for key, counts in episode.pixels.items():
            self._pixels[key] = self._pixels.get(key, 0) + counts
            self._moments[key] = statistics.pooled(self._moments.get(key), episode.stats[key])
        location = self._write_rows(columns)
        location |= {"dataset_from_index": first, "dataset_to_index": first + episode.length}
        for key in self._meta.video_keys:
            location |= self._place_video(key, episode.videos[key], episode.length)
        self._meta.stats = None  # LeRobot's aggregate of the episodes is not exact
        self._meta.save_episode(index, episode.length, [episode.task], stats, location)

    def finish(self) -> None:
        """Concatenate the videos and close every file; the dataset is complete after this."""
        from lerobot.datasets.io_utils import write_info, write_stats

        if self._table_writer is not None:
            self._table_writer.close()
        for key in self._meta.video_keys:
            self._join(key)
            if "info" not in self._meta.features[key]:
                self._meta.update_video_info(key, video_encoder=self._video_encoder)
        write_info(self._meta.info, self._root)
        self._meta.finalize()
        self._meta.stats = totals.of_dataset(
            self._root, self._meta.features, self.frames, self._moments, self._pixels
        )
        write_stats(self._meta.stats, self._root)

    def discard(self) -> None:
        """Close every file of a dataset that will be deleted.

        Otherwise LeRobot's metadata object, when garbage-collected, writes its buffered rows and
        recreates the deleted directories.
        """
        self._meta._metadata_buffer.clear()
        with suppress(OSError):  # writing may be what failed
            if self._table_writer is not None:
                self._table_writer.close()
        with suppress(OSError):
            self._meta.finalize()

    def _write_rows(self, columns: dict[str, Any]) -> dict[str, int]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = [_column(columns[field.name], field.type) for field in self._schema]
        table = pa.table(arrays, schema=self._schema)
        limit = self._meta.info.data_files_size_in_mb * MEBIBYTE
        if self._table_writer is not None and self._table_path().stat().st_size > limit:
            self._table_writer.close()
            self._table_writer = None
            self._table_file = self._next(self._table_file)
        if self._table_writer is None:
            self._table_path().parent.mkdir(parents=True, exist_ok=True)
            self._table_writer = pq.ParquetWriter(
                self._table_path(), self._schema, compression="snappy", use_dictionary=True
            )
        self._table_writer.write_table(table)
        chunk, file = self._table_file
        return {"data/chunk_index": chunk, "data/file_index": file}

    def _table_path(self) -> Path:
        chunk, file = self._table_file
        return self._root / str(self._meta.data_path).format(chunk_index=chunk, file_index=file)

    def _place_video(self, key: str, path: Path, length: int) -> dict[str, Any]:
        size, fps = path.stat().st_size, self._meta.fps
        limit = self._meta.info.video_files_size_in_mb * MEBIBYTE
        lasts = (self._video_frames.get(key, 0) + length) / fps
        full = self._video_bytes.get(key, 0) + size > limit or lasts > LONGEST_VIDEO_S
        if self._parts.get(key) and full:
            self._join(key)
            self._video_files[key] = self._next(self._video_files[key])
        if not self._parts.get(key):
            self._parts[key], self._video_bytes[key], self._video_frames[key] = [], 0, 0
            self._video_files.setdefault(key, (0, 0))
        begin = self._video_frames[key]
        self._parts[key].append(path)
        self._video_bytes[key] += size
        self._video_frames[key] += length
        chunk, file = self._video_files[key]
        return {
            f"videos/{key}/chunk_index": chunk,
            f"videos/{key}/file_index": file,
            f"videos/{key}/from_timestamp": begin / fps,
            f"videos/{key}/to_timestamp": (begin + length) / fps,
        }

    def _join(self, key: str) -> None:
        chunk, file = self._video_files[key]
        name = self._meta.video_path.format(video_key=key, chunk_index=chunk, file_index=file)
        frames = join(self._parts[key], self._root / name, self._meta.fps)
        if frames != self._video_frames[key]:
            raise DatasetError(
                f"{name} has {frames} frames for {self._video_frames[key]} rows; convert again"
            )
        self._parts[key] = []

    def _next(self, position: tuple[int, int]) -> tuple[int, int]:
        from lerobot.datasets.utils import update_chunk_file_indices

        chunk, file = update_chunk_file_indices(*position, self._meta.info.chunks_size)
        return int(chunk), int(file)


def _file_of(episode: dict[str, Any], kind: str) -> tuple[int, int]:
    return int(episode[f"{kind}/chunk_index"]), int(episode[f"{kind}/file_index"])


def _column(values: Any, kind: Any) -> Any:
    """Convert a feature's column to an Arrow array of the type in LeRobot's schema."""
    import pyarrow as pa

    if pa.types.is_struct(kind):  # an image, in the format of `datasets`
        return pa.array([{"bytes": file, "path": None} for file in values], type=kind)
    array = np.asarray(values)
    if array.ndim == 1:
        return pa.array(array, type=kind)
    flat = pa.array(array.reshape(-1), type=kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    offsets = np.arange(len(array) + 1, dtype=np.int32) * array.shape[1]
    return pa.ListArray.from_arrays(offsets, flat).cast(kind)
