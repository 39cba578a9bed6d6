"""Raw episodes: read and write the on-disk format of public Positronic, sample by time.

Reading: :func:`load_all_datasets` of a directory or ``s3://``, :class:`LocalDataset`. Filtering:
:mod:`~positronic.dataset.subsets`. Writing: :class:`DatasetWriter`. Recordings of other versions:
:mod:`~positronic.dataset.conventions`.

Importing this package loads neither pyarrow nor PyAV; opening files does.
"""

from positronic.dataset.dataset import ConcatDataset, Dataset
from positronic.dataset.episode import Episode
from positronic.dataset.local import DiskEpisode, LocalDataset
from positronic.dataset.opening import load_all_datasets
from positronic.dataset.signal import Signal
from positronic.dataset.video import Frames, VideoSignal
from positronic.dataset.writer import DatasetWriter, EpisodeWriter

__all__ = [
    "ConcatDataset",
    "Dataset",
    "DatasetWriter",
    "DiskEpisode",
    "Episode",
    "EpisodeWriter",
    "Frames",
    "LocalDataset",
    "Signal",
    "VideoSignal",
    "load_all_datasets",
]
