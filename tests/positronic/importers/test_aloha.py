"""Episodes of ALOHA, written as ACT writes them."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from positronic import cli
from positronic.codec import Contract
from positronic.dataset import LocalDataset
from positronic.importers.command import aloha
from positronic.vendors.lerobot.convert import COMMANDS
from positronic.vendors.lerobot.verification.verify import verify_dataset

STEPS, SIZE = 12, (48, 64)


def frames(seed: int, steps: int = STEPS) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 256, (steps, 6, 8, 3), np.uint8)
    return np.asarray(tiles.repeat(8, axis=1).repeat(8, axis=2))


def jpeg(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=50)
    return np.frombuffer(out.getvalue(), np.uint8)


def write(
    folder: Path,
    index: int,
    *,
    size: int = 14,
    compressed: bool = False,
    gzip: bool = False,
    base: bool = False,
) -> dict[str, Any]:
    """Write an episode as ``record_episodes.py`` does; return what it holds."""
    rng = np.random.default_rng(index)
    held: dict[str, Any] = {
        name: rng.uniform(-1, 1, (STEPS, size)) for name in ("qpos", "qvel", "effort", "action")
    }
    held |= {camera: frames(7 * index + i) for i, camera in enumerate(("cam_high", "cam_low"))}
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"episode_{index}.hdf5", "w", rdcc_nbytes=1024**2 * 2) as root:
        root.attrs["sim"] = False
        root.attrs["compress"] = compressed
        observations = root.create_group("observations")
        images = observations.create_group("images")
        for camera in ("cam_high", "cam_low"):
            if compressed:
                files = [jpeg(picture) for picture in held[camera]]
                longest = max(map(len, files))
                rows = np.stack([np.pad(file, (0, longest - len(file))) for file in files])
                images.create_dataset(camera, data=rows, chunks=(1, longest))
                lengths = np.array([[len(file) for file in files]] * 2)
                if camera == "cam_low":
                    root.create_dataset("compress_len", data=lengths.astype(float))
            else:
                more = {"compression": "gzip"} if gzip else {}
                images.create_dataset(camera, data=held[camera], chunks=(1, *SIZE, 3), **more)
        for name in ("qpos", "qvel", "effort"):
            observations.create_dataset(name, data=held[name])
        root.create_dataset("action", data=held["action"])
        if base:
            held["base"] = rng.uniform(-1, 1, (STEPS, 2))
            root.create_dataset("base_action", data=held["base"])
    return held


def run(*words: str) -> int:
    return cli.status({"aloha": aloha}, "positronic-import", ["aloha", *words])


@pytest.mark.parametrize(
    ("size", "options"),
    [(14, {}), (7, {"gzip": True}), (14, {"compressed": True, "base": True})],
)
def test_nothing_is_lost(tmp_path: Path, size: int, options: dict[str, bool]) -> None:
    held = [write(tmp_path / "act", i, size=size, **options) for i in (0, 2, 10)]
    words = [str(tmp_path / "act"), f"--output_dir={tmp_path / 'raw'}", "--task=Open the drawer."]
    assert run(*words) == 0
    episodes = LocalDataset(tmp_path / "raw")
    assert [e["source.file"] for e in episodes] == [f"episode_{i}.hdf5" for i in (0, 2, 10)]
    arms = [("left.", 0), ("right.", 7)] if size == 14 else [("", 0)]
    for episode, wanted in zip(episodes, held, strict=True):
        assert episode["task"] == "Open the drawer."
        assert episode["control_fps"] == 50
        assert any("rate: 50 per second" in each for each in episode["import.assumptions"])
        for arm, first in arms:
            for name, signal_name, grip in (
                ("qpos", "robot_state.q", "grip"),
                ("qvel", "robot_state.dq", "grip_speed"),
                ("effort", "robot_state.effort", "grip_effort"),
                ("action", "robot_commands.joints", "target_grip"),
            ):
                rows = wanted[name].astype(np.float32)
                joints = episode[f"{arm}{signal_name}"]
                np.testing.assert_array_equal(joints.values(), rows[:, first : first + 6])
                np.testing.assert_array_equal(episode[f"{arm}{grip}"].values(), rows[:, first + 6])
                np.testing.assert_array_equal(joints.timestamps(), np.arange(STEPS) * 20_000_000)
        if "base" in wanted:
            base = episode["robot_commands.base"].values()
            np.testing.assert_array_equal(base, wanted["base"].astype(np.float32))
        for camera in ("cam_high", "cam_low"):
            found = np.asarray(episode[f"image.{camera}"].values()).astype(int)
            assert found.shape == (STEPS, *SIZE, 3)
            # Tiles keep their colours through JPEG and H.264.
            assert np.abs(found - wanted[camera])[:, 4::8, 4::8].mean() < 12


def test_colours_rate_and_names_are_as_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held = write(tmp_path / "act", 0)
    words = [str(tmp_path / "act/episode_0.hdf5"), f"--output_dir={tmp_path / 'raw'}", "--bgr=True"]
    names = "--signals={image.cam_high: image.front, image.cam_low: null}"
    assert run(*words, "--fps=25", names) == 0
    (episode,) = LocalDataset(tmp_path / "raw")
    assert "image.cam_low" not in episode.signals
    found = np.asarray(episode["image.front"].values()).astype(int)
    assert np.abs(found - held["cam_high"][..., ::-1])[:, 4::8, 4::8].mean() < 12
    assert episode["grip" if "grip" in episode.signals else "left.grip"].last_ts == 440_000_000
    assert "order of colours: blue, green, red" in capfd.readouterr().err


def test_what_it_would_become_is_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "act", 0, compressed=True)
    assert run(str(tmp_path / "act"), "--inspect=True") == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert "aloha: 1 episodes at 50 per second" in lines
    assert "observations/qpos[right.] float32 6, 12 samples -> right.robot_state.q" in lines
    assert "observations/images/cam_low uint8 48x64x3, 12 samples -> image.cam_low" in lines


def test_it_converts_for_two_arms(tmp_path: Path) -> None:
    for index in range(2):
        write(tmp_path / "act", index)
    words = [str(tmp_path / "act"), f"--output_dir={tmp_path / 'raw'}", "--task=Fold."]
    assert run(*words) == 0
    codec = ["--dataset.codec=bimanual_joints", "--dataset.codec.cameras={top: image.cam_high}"]
    words = [f"--dataset.dataset={tmp_path / 'raw'}", *codec, "--dataset.codec.image_size=[48,64]"]
    words += [f"--output_dir={tmp_path / 'out'}", "--fps=50", "--workers=0"]
    assert cli.status(COMMANDS, "prog", ["convert", *words]) == 0
    assert verify_dataset(tmp_path / "out").faults == ()
    features = Contract.load(tmp_path / "out/meta").features
    assert features["action"]["shape"] == [14]
    assert features["observation.images.top"]["shape"] == [48, 64, 3]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        with h5py.File(file, "r+") as root:
            change(root)

    return spoil


def replaced(key: str, data: Any, **more: Any) -> Callable[[Path], None]:
    def change(root: h5py.File) -> None:
        del root[key]
        root.create_dataset(key, data=data, **more)

    return edit(change)


def link(root: h5py.File) -> None:
    del root["action"]
    root["action"] = h5py.ExternalLink("/etc/passwd", "/action")


def bomb(root: h5py.File) -> None:
    del root["observations/images/cam_low"]
    shape = (2**20, 2**12, 2**12, 3)
    root.create_dataset("observations/images/cam_low", shape, "u1", chunks=(1, 4096, 4096, 3))


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (cut, "is not a readable HDF5 file"),
    "empty": (lambda file: open(file, "wb").close(), "is not a readable HDF5 file"),
    "no action": (edit(lambda root: root.pop("action")), "has no action"),
    "no qpos": (edit(lambda root: root["observations"].pop("qpos")), "has no observations/qpos"),
    "no observations": (edit(lambda root: root.pop("observations")), "observations"),
    "of three arms": (replaced("action", np.zeros((STEPS, 21))), r"shape \(12, 21\), expected"),
    "fewer actions": (replaced("action", np.zeros((5, 14))), "rows of"),
    "not finite": (replaced("action", np.full((STEPS, 14), np.nan)), "not finite"),
    "text": (replaced("action", ["a"] * STEPS), "expected numbers"),
    "no rows": (replaced("action", np.zeros((0, 14))), r"shape \(0, 14\)"),
    "elsewhere": (edit(link), "is a link to another location"),
    "no picture": (
        replaced("observations/images/cam_low", np.zeros((STEPS, 900), np.uint8)),
        "cam_low of row 0 is not a JPEG file",
    ),
    "floats": (replaced("observations/images/cam_low", np.zeros((STEPS, 8, 8, 3))), "is float64"),
    "grey": (
        replaced("observations/images/cam_low", np.zeros((STEPS, 8, 8, 1), np.uint8)),
        "expected uint8",
    ),
    "absurd": (edit(bomb), "rows of|MiB"),
    "odd filter": (
        replaced("observations/images/cam_low", frames(1), compression="lzf"),
        "unsupported compression",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_damaged_file_is_named_and_costs_itself_alone(
    tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        write(tmp_path / "act", index)
    spoil, message = SPOILED[case]
    spoil(tmp_path / "act/episode_0.hdf5")
    words = [str(tmp_path / "act"), f"--output_dir={tmp_path / 'raw'}"]
    assert run(*words) == 1
    said = capfd.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("skipped: ")]
    assert "episode_0.hdf5" in line
    assert re.search(message, line), line
    assert "Traceback" not in said
    (episode,) = LocalDataset(tmp_path / "raw")
    assert episode["source.file"] == "episode_1.hdf5"


def test_nothing_to_import_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = f"--output_dir={tmp_path / 'raw'}"
    write(tmp_path / "act", 0)
    cut(tmp_path / "act/episode_0.hdf5")
    (tmp_path / "none").mkdir()
    for words, message in (
        ([str(tmp_path / "act"), out], "none of the 1 files can be read: episode_0.hdf5"),
        ([str(tmp_path / "none"), out], "has no .hdf5 files"),
        ([str(tmp_path / "gone"), out], "nothing is at"),
        ([str(tmp_path / "act")], "still needed: --output_dir"),
        ([str(tmp_path / "act"), out, "--fps=0"], "--fps=0"),
    ):
        assert run(*words) != 0
        assert message in capfd.readouterr().err
    assert not (tmp_path / "raw").exists()
    write(tmp_path / "act", 0)
    assert run(str(tmp_path / "act"), out, "--signals={image.cam_hihg: x}") != 0
    assert "did you mean 'image.cam_high'" in capfd.readouterr().err
    assert run(str(tmp_path / "act"), out, "--signals={left.grip: right.grip}") != 0
    assert "two signals of the name 'right.grip'" in capfd.readouterr().err
    assert run(str(tmp_path / "act"), out) == 0
    assert run(str(tmp_path / "act"), out) == 1
    assert "is not empty; choose another" in capfd.readouterr().err


def assert_same(root: Path, other: Path) -> None:
    """Two datasets hold the same; pictures but for how x264 happened to encode them.

    With other threads about, libx264 encodes the same pictures differently once in a while: by some
    tenths of a grey level on average.
    """
    ours, theirs = LocalDataset(root), LocalDataset(other)
    for one, two in zip(ours, theirs, strict=True):
        assert (one.uid, dict(one.static)) == (two.uid, dict(two.static))
        assert list(one.signals) == list(two.signals)
        for name, signal_ in one.signals.items():
            np.testing.assert_array_equal(signal_.timestamps(), two[name].timestamps())
            a, b = (np.asarray(each.values()) for each in (signal_, two[name]))
            if a.ndim == 4:
                assert np.abs(a.astype(int) - b).mean() < 3
            else:
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(3))
def test_killed_and_resumed_it_is_the_same(tmp_path: Path, seed: int) -> None:
    for index in range(6):
        write(tmp_path / "act", index)
    program = [sys.executable, "-c", "from positronic.importers import main; main()", "aloha"]
    words = [*program, str(tmp_path / "act")]
    out = f"--output_dir={tmp_path / 'raw'}"
    process = subprocess.Popen([*words, out], stderr=subprocess.DEVNULL)
    wanted = np.random.default_rng(seed).integers(1, 5)
    block = tmp_path / "raw/000000000000"
    while process.poll() is None and not (block.is_dir() and len(os.listdir(block)) >= wanted):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for more in ([out, "--resume=True"], [f"--output_dir={tmp_path / 'whole'}"]):
        subprocess.run([*words, *more], check=True, capture_output=True)
    assert_same(tmp_path / "raw", tmp_path / "whole")
    assert len(LocalDataset(tmp_path / "raw")) == 6
    assert run(str(tmp_path / "act"), out, "--resume=True") == 0
    assert len(LocalDataset(tmp_path / "raw")) == 6
