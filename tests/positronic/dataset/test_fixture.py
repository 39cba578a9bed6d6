"""Recordings made by public Positronic 0.2.1, checked against what they are known to hold."""

from pathlib import Path

import numpy as np

from positronic.dataset import LocalDataset, VideoSignal

FIRST = {"robot_state.ee_pose": 2_000_000, "robot_commands.pose": 4_000_000}


def test_episodes(fixture_root: Path) -> None:
    dataset = LocalDataset(fixture_root)
    assert len(dataset) == 2
    episode = dataset[0]
    assert episode["task"] == "Pick up the green cube and place it on the red cube."
    assert len(episode.signals) == 18
    assert episode.uid == "ts-1795142623605815324"
    assert episode.duration_ns == episode.last_ts - episode.start_ts == 3_011_999_999


def test_start_is_the_latest_first_sample(fixture_root: Path) -> None:
    episode = LocalDataset(fixture_root)[0]
    starts = {name: signal.start_ts for name, signal in episode.signals.items()}
    assert starts.items() >= FIRST.items()
    assert episode.start_ts == max(starts.values())
    assert set(episode.time[episode.start_ts]) == set(episode)


def test_signals(fixture_root: Path) -> None:
    for episode in LocalDataset(fixture_root):
        q = episode["robot_state.q"]
        assert (q.dtype, q.shape) == (np.float32, (7,))
        pose = episode["robot_state.ee_pose"].values()
        assert pose.dtype == np.float64
        np.testing.assert_allclose(np.linalg.norm(pose[:, 3:], axis=1), 1.0, atol=1e-6)
        for name, signal in episode.signals.items():
            assert signal.timestamps()[0] == signal.start_ts, name
            assert signal.timestamps()[-1] == signal.last_ts, name


def test_video_by_seeking_equals_video_read_through(fixture_root: Path) -> None:
    for name in ("image.wrist", "image.exterior"):
        signal = LocalDataset(fixture_root)[1][name]
        assert isinstance(signal, VideoSignal)
        assert signal.shape == (240, 320, 3)
        through = list(signal.frames())
        assert len(through) == len(signal)
        for i in np.random.default_rng(0).permutation(len(signal)):
            np.testing.assert_array_equal(signal[int(i)][0], through[i])
