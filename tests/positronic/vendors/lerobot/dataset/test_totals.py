"""Statistics of whole datasets: of all rows and pixels, whichever way the dataset came about."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from positronic.codec import Codec, Contract, stats_digest
from positronic.dataset import LocalDataset
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion import stored_episode
from positronic.vendors.lerobot.conversion.append import append_dataset
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.dataset.statistics import of_pixels, of_vectors, pooled
from tests.positronic.vendors.lerobot.conversion.kills import contents, files_in, killed
from tests.positronic.vendors.lerobot.raw import FPS, record

pytestmark = [
    # The fork does nothing but convert, and takes no lock of another thread.
    pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning"),
]

MODULE = "positronic.vendors.lerobot.convert"
HERE = Options(workers=0)
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    root = tmp_path_factory.mktemp("raw")
    for index, steps in enumerate((12, 4, 7)):
        record(root, index, steps=steps, statics={"task": f"task {index}"})
    return LocalDataset(root)


def rows_of(root: Path, name: str) -> NDArray[Any]:
    """All rows of a feature, as anyone would read them."""
    files = sorted(root.glob("data/*/*.parquet"))
    rows = [row for file in files for row in pq.read_table(file)[name].to_pylist()]
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


def pixels_of(raw: LocalDataset, codec: Codec, name: str, root: Path) -> NDArray[Any]:
    """All pixels of a camera as they go into the encoder, (N, 3)."""
    frames = rows_of(root, "frame_index").ravel().astype(int)
    episodes = rows_of(root, "episode_index").ravel().astype(int)
    found = []
    for episode, frame in zip(episodes, frames, strict=True):
        time = int(raw[episode]["grip"].start_ts) + frame * 10**9 // FPS
        observation = {key: raw[episode][key].time[time][0] for key in codec.inputs}
        found.append(codec.encode(observation)[name].reshape(-1, 3))
    pixels: NDArray[Any] = np.concatenate(found) / 255.0
    return pixels


def require_exact(root: Path, raw: LocalDataset, codec: Codec) -> None:
    """Every statistic of every feature is that of all rows, or all pixels."""
    stats = json.loads((root / "meta" / "stats.json").read_text())
    info = json.loads((root / "meta" / "info.json").read_text())
    assert list(stats) == list(info["features"])
    for name, feature in info["features"].items():
        camera = feature["dtype"] in ("video", "image")
        values = pixels_of(raw, codec, name, root) if camera else rows_of(root, name)
        method = "inverted_cdf" if camera else "linear"
        expected = {
            "min": values.min(axis=0),
            "max": values.max(axis=0),
            "mean": values.mean(axis=0),
            "std": values.std(axis=0),
        }
        for q in QUANTILES:
            expected[f"q{round(q * 100):02d}"] = np.quantile(values, q, axis=0, method=method)  # type: ignore[call-overload]
        assert stats[name].keys() == expected.keys() | {"count"}
        assert stats[name]["count"] == [info["total_frames"]]
        for statistic, value in expected.items():
            found = np.array(stats[name][statistic])
            assert found.shape == ((3, 1, 1) if camera else value.shape)
            np.testing.assert_allclose(
                found.ravel(), value, rtol=1e-9, atol=1e-12, err_msg=f"{name} {statistic}"
            )
    contract = Contract.load(root / "meta")
    numbers = {name: {k: np.array(v) for k, v in each.items()} for name, each in stats.items()}
    assert contract.stats_digest == stats_digest(numbers, contract.features)


@pytest.mark.parametrize("video", [True, False], ids=["video", "pictures"])
def test_after_converting_and_appending(raw: LocalDataset, tmp_path: Path, video: bool) -> None:
    codec = codecs.eepose_absolute(image_size=(32, 32))
    options = Options(workers=0, video=video)
    convert_dataset(raw[:2], codec, tmp_path / "out", FPS, options)
    require_exact(tmp_path / "out", raw, codec)
    append_dataset(raw, codec, tmp_path / "out", HERE)
    require_exact(tmp_path / "out", raw, codec)


def test_after_going_on(raw: LocalDataset, tmp_path: Path) -> None:
    codec, root = codecs.eepose_absolute(image_size=(32, 32)), tmp_path / "data" / "out"
    root.parent.mkdir()
    convert_dataset(raw, codec, tmp_path / "whole", FPS, HERE)

    def convert() -> object:
        return convert_dataset(raw, codec, root, FPS, Options(workers=0, resume=True))

    assert killed(convert, files_in(root.parent), 30)
    episodes = root.parent / ".out.partial" / "episodes"
    (first, *_) = (stored_episode.numbered(episodes, n) for n in stored_episode.done(episodes))
    # As a version before pixels were counted left it: that episode is encoded again.
    document = json.loads((first / "episode.json").read_text())
    del document["pixels"]
    (first / "episode.json").write_text(json.dumps(document))
    convert()
    require_exact(root, raw, codec)
    whole, found = contents(tmp_path / "whole"), contents(root)
    assert {n: c for n, c in found.items() if n != "meta/provenance.json"} == {
        n: c for n, c in whole.items() if n != "meta/provenance.json"
    }


@pytest.mark.e2e
def test_two_conversions_give_the_same_bytes(raw: LocalDataset, tmp_path: Path) -> None:
    """Whatever the order in which this Python goes through its sets."""
    words = [
        "convert",
        f"--dataset.dataset.path={raw.root}",
        "--dataset.codec=@positronic.vendors.lerobot.codecs.joints_absolute",
        "--dataset.codec.image_size=[32,32]",
        f"--fps={FPS}",
        "--workers=0",
    ]
    found = []
    for seed in ("1", "2"):
        output = tmp_path / seed
        subprocess.run(
            [sys.executable, "-m", MODULE, *words, f"--output_dir={output}"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            timeout=300,
        )
        found.append({name: c for name, c in contents(output).items() if "provenance" not in name})
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def test_many_rows_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    whole = of_vectors(rows)
    monkeypatch.setattr("positronic.vendors.lerobot.dataset.statistics.AT_ONCE", 2500)
    parts = of_vectors(rows)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-12)
    # LeRobot's layout: all axes but the last are taken together.
    assert of_vectors(rows.reshape(500, 2, 7))["q10"].shape == (7,)
    assert of_vectors(rows.reshape(500, 2, 7))["count"].tolist() == [500]


def test_two_lots_of_pixels_are_pooled_exactly() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (2, 3, 256))
    sizes = counts.sum(axis=2)
    counts[:, :, 0] += sizes.max() - sizes  # as many pixels in every channel
    one, other = (of_pixels(each, 4) for each in counts)
    both = of_pixels(counts.sum(axis=0), 8)
    for name, value in pooled(one, other).items():
        np.testing.assert_allclose(value, both[name], rtol=1e-12)
