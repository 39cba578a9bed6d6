"""``docs/raw_episodes.md``: its code runs as it is written, and codecs read what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from positronic.cli import status
from positronic.dataset import LocalDataset
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.convert import COMMANDS

PAGE = (Path(__file__).parents[3] / "docs/raw_episodes.md").read_text()


def record(folder: Path, seconds: int = 1) -> None:
    times = np.arange(50 * seconds) / 50
    rows = np.random.default_rng(0).uniform(0, 1, (len(times), 17))
    rows[:, 0], rows[:, 12:16] = times, [0.0, 1.0, 0.0, 0.0]
    folder.mkdir(parents=True)
    np.savetxt(folder / "robot.csv", rows, delimiter=",", header="time, and sixteen numbers")
    for camera in ("wrist", "exterior"):
        (folder / camera).mkdir()
        for index in range(10 * seconds):
            picture = Image.new("RGB", (48, 32), (25 * index, 0, 0))
            picture.save(folder / camera / f"{index:06d}.png")


def test_a_folder_becomes_an_episode_that_can_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        record(Path("recordings") / name)
    writing, editing = re.findall(r"(?s)```python\n(.*?)```", PAGE)
    exec(writing, {})

    first, _ = LocalDataset("raw")
    assert (len(first["robot_state.q"]), len(first["image.wrist"])) == (50, 10)
    frame, time = first["image.wrist"].time[150_000_000]
    assert time == 100_000_000
    assert frame[..., 0].mean() == pytest.approx(25, abs=6)
    command = [
        "convert",
        "--dataset.dataset=raw",
        f"--dataset.codec=@{codecs.__name__}.joints_absolute",
        "--dataset.codec.image_size=64",
        "--output_dir=dataset",
        "--fps=10",
        "--workers=1",
    ]
    assert status(COMMANDS, "positronic-to-lerobot", command) == 0

    capsys.readouterr()
    exec(editing, {})
    assert capsys.readouterr().out == "1 of 2\n"


def test_the_tables_say_which_codec_reads_a_signal() -> None:
    table = PAGE.partition("## Signals")[2].partition("## Static values")[0]
    lines = re.findall(r"(?m)^\| (`.*?) \| .* \| (.*) \|$", table)
    assert len(lines) == 9
    of_one_arm = [name for name in codecs.__all__ if not name.startswith("bimanual")]
    for names, reader in lines:
        for name in re.findall(r"`(.*?)`", names):
            reading = [
                each
                for each in codecs.__all__
                for codec in (getattr(codecs, each)(),)
                if name in (*codec.inputs, *codec.action_inputs)
            ]
            named = re.findall(r"`(.*?)`", reader)
            if reader == "none unless named":
                named = []
            elif "all of one arm" in reader:
                named = of_one_arm
            elif "all but" in reader:
                named = [name for name in codecs.__all__ if name not in named]
            assert sorted(named) == sorted(reading), name
