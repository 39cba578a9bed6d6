"""Conversion seen from its result: LeRobot itself opens what was written."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.errors import StorageError, UsageError
from positronic import cli
from positronic.codec import Codec, Contract, stats_digest
from positronic.dataset import DatasetWriter, LocalDataset
from positronic.errors import DatasetError
from positronic.source import commit
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.conversion.pipeline import Options, convert_dataset
from positronic.vendors.lerobot.convert import COMMANDS, prepare
from tests.positronic.vendors.lerobot.raw import FPS, GRIP, TASK, record

# LeRobot takes long to import; one test process is enough to pay for it.
FIXTURE = Path(__file__).parents[5] / "../shared/fixtures/recorded_sim"
MODULE = "@positronic.vendors.lerobot.codecs"


def opened(root: Path, **options: Any) -> Any:
    from lerobot.datasets import LeRobotDataset

    return LeRobotDataset("local", root=root, video_backend="pyav", **options)


def rows_of(raw: LocalDataset, codec: Codec, index: int) -> list[dict[str, Any]]:
    """What each row has to hold: the live path, row by row, on samples read one at a time."""
    episode = raw[index]
    start = max(episode[name].start_ts for name in (*codec.inputs, *codec.action_inputs))
    last = max(episode[name].last_ts for name in (*codec.inputs, *codec.action_inputs))
    rows: list[dict[str, Any]] = []
    while (time := start + len(rows) * 10**9 // FPS) <= last:
        names = (*codec.inputs, *codec.action_inputs)
        observation = {name: episode[name].time[time][0] for name in names}
        before = rows[-1] if rows else {"action": None}
        action = codec.encode_action(observation, before["action"])
        rows.append(codec.encode(observation, before) | {"action": action})
    return rows


def check_rows(dataset: Any, raw: LocalDataset, codec: Codec) -> None:
    """Every value and frame of the dataset is what the codec makes of the recording."""
    expected = [(e, row) for e in range(len(raw)) for row in rows_of(raw, codec, e)]
    assert len(dataset) == len(expected)
    for index, (episode, row) in enumerate(expected):
        item = dataset[index]
        assert (int(item["index"]), int(item["episode_index"])) == (index, episode)
        np.testing.assert_allclose(float(item["timestamp"]), int(item["frame_index"]) / FPS)
        for name, value in row.items():
            got = item[name].numpy()
            if value.dtype == np.uint8:
                # Halved colour and compression; frames of neighbouring rows differ by 5 and more.
                difference = np.abs(got.transpose(1, 2, 0) * 255 - value)
                assert difference.mean() < 4, (index, name)
            else:
                assert got.dtype == np.float32
                np.testing.assert_array_equal(got, value)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    root = tmp_path_factory.mktemp("raw")
    for index, steps in enumerate((12, 5, 9)):
        record(root, index, steps=steps)
    return LocalDataset(root)


def test_a_dataset_without_images_holds_what_the_codec_says(
    raw: LocalDataset, tmp_path: Path
) -> None:
    codec, root = codecs.eepose_state(), tmp_path / "out"
    report = convert_dataset(raw, codec, root, FPS)
    assert (report.episodes, report.frames, report.refused) == (3, 13 + 6 + 10, ())
    dataset = opened(root)
    check_rows(dataset, raw, codec)
    assert dataset.fps == FPS
    assert dataset.meta.total_episodes == 3
    for name, feature in codec.features.items():
        assert dataset.features[name]["dtype"] == feature["dtype"]
        assert tuple(dataset.features[name]["shape"]) == feature["shape"]
        assert dataset.features[name]["names"] == feature["names"]
    assert dataset[20]["task"] == TASK
    timestamps = [float(dataset[i]["timestamp"]) for i in range(13)]
    np.testing.assert_allclose(timestamps, np.arange(13) / 15, atol=1e-6)
    actions = np.stack([dataset[i]["action"].numpy() for i in range(len(dataset))])
    stats = dataset.meta.stats["action"]
    np.testing.assert_allclose(stats["mean"], actions.mean(axis=0, dtype=np.float64), atol=1e-9)
    np.testing.assert_allclose(stats["std"], actions.std(axis=0, dtype=np.float64), atol=1e-9)
    np.testing.assert_array_equal(stats["min"], actions.min(axis=0))
    assert stats["count"].tolist() == [29]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("options", [Options(workers=2), Options(workers=1, vcodec="libsvtav1")])
def test_videos_show_what_the_codec_made(
    raw: LocalDataset, tmp_path: Path, options: Options
) -> None:
    codec, root = codecs.eepose_absolute(image_size=(64, 64)), tmp_path / "out"
    convert_dataset(raw, codec, root, FPS, options)
    dataset = opened(root)
    check_rows(dataset, raw, codec)
    stats = dataset.meta.stats["observation.images.left"]
    frames = [row["observation.images.left"] for e in range(3) for row in rows_of(raw, codec, e)]
    np.testing.assert_allclose(stats["mean"].ravel(), np.mean(frames, axis=(0, 1, 2)) / 255)
    np.testing.assert_allclose(stats["std"].ravel(), np.std(frames, axis=(0, 1, 2)) / 255)


def test_pictures_are_exact(raw: LocalDataset, tmp_path: Path) -> None:
    codec, root = codecs.joints_absolute(image_size=(63, 64)), tmp_path / "out"
    convert_dataset(raw[:1], codec, root, FPS, Options(video=False))
    dataset = opened(root)
    assert dataset.features["observation.images.left"]["dtype"] == "image"
    for index, row in enumerate(rows_of(raw, codec, 0)):
        got = dataset[index]["observation.images.left"].numpy().transpose(1, 2, 0) * 255
        np.testing.assert_allclose(got, row["observation.images.left"], atol=1e-3)


def test_chunks_of_actions_stay_inside_an_episode(raw: LocalDataset, tmp_path: Path) -> None:
    root = tmp_path / "out"
    convert_dataset(raw, codecs.eepose_state(), root, FPS)
    deltas = {"action": [i / FPS for i in range(4)]}
    item = opened(root, delta_timestamps=deltas)[11]
    assert item["action"].shape == (4, 8)
    assert item["action_is_pad"].tolist() == [False, False, True, True]


def test_the_contract_and_the_provenance_are_inside(raw: LocalDataset, tmp_path: Path) -> None:
    codec, root = codecs.eepose_state(), tmp_path / "out"
    convert_dataset(raw, codec, root, FPS)
    contract = Contract.load(root / "meta")
    assert contract.make_codec() == codec
    stats = json.loads((root / "meta" / "stats.json").read_text())
    assert contract.stats_digest == stats_digest(stats, codec.features)
    contract.require_same(Contract.of(codec, fps=15), "the dataset", "the codec")
    provenance = json.loads((root / "meta" / "provenance.json").read_text())
    assert [e["frames"] for e in provenance["episodes"]] == [13, 6, 10]
    assert provenance["episodes"][0]["source"] == str(raw[0].path)  # type: ignore[attr-defined]
    assert provenance["versions"]["lerobot"]
    assert provenance["commit"] == commit()
    assert provenance["command"]


@pytest.mark.parametrize(
    ("without", "mend"),
    [
        (("image.wrist",), "choose --codec=eepose_state, which fits, or record them"),
        (
            ("image.wrist", "object_poses"),
            "choose --dataset.codec=.eepose_absolute"
            " --dataset.codec.cameras=exterior:image.exterior, which fits",
        ),
        (
            ("image.wrist", "object_poses", "robot_commands.pose"),
            "record them, or write a codec of your own",
        ),
    ],
)
def test_recordings_without_the_codecs_signals_lead_to_one_that_fits(
    tmp_path: Path, without: tuple[str, ...], mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        record(tmp_path / "raw", index, without=without)
    codec = codecs.eepose_absolute(image_size=(32, 48))
    said = rf"none of the 2 episodes can .*/0{{12}}: has no signal image\.wrist.*; .*; {mend}"
    with pytest.raises(DatasetError, match=said):
        convert_dataset(LocalDataset(tmp_path / "raw"), codec, tmp_path / "out", FPS)
    # Before LeRobot is imported, or anything is written.
    assert capsys.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_bad_episodes_are_named_and_the_others_converted(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    record(root, 0)
    no_command = record(root, 1, without=("robot_commands.pose",))
    senseless = record(root, 2, statics={"grip_convention": {"open": 1.0, "closed": 1.0}})
    short = record(root, 3, steps=0)
    corrupt = record(root, 4)
    (corrupt / "grip.parquet").write_bytes(b"PAR1 nothing")
    record(root, 5, statics={"task": "another"})
    report = convert_dataset(LocalDataset(root), codecs.eepose_state(), tmp_path / "out", FPS)
    assert report.episodes == 2
    reasons = dict(report.refused)
    assert list(reasons) == [str(path) for path in (no_command, senseless, short, corrupt)]
    assert "has no signal robot_commands.pose" in reasons[str(no_command)]
    assert "static 'grip_convention' is" in reasons[str(senseless)]
    assert "has no signal" in reasons[str(short)]  # not one command
    assert "grip" in reasons[str(corrupt)]
    assert "warning: 4 of 6 episodes were refused" in report.warnings()
    dataset = opened(tmp_path / "out")
    assert (dataset.meta.total_episodes, len(dataset)) == (2, 26)
    assert [dataset[i]["task"] for i in (0, 13)] == [TASK, "another"]
    with pytest.raises(DatasetError, match=f"none of the 1 episodes.*{senseless}"):
        convert_dataset(LocalDataset(root)[2:3], codecs.eepose_state(), tmp_path / "none", FPS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


@pytest.mark.parametrize(
    ("signal", "value", "says"),
    [
        ("grip", np.float64(1e300), "its grip is 1e+300"),
        ("target_grip", np.float64(-1e39), "its target_grip is -1e+39"),
        ("robot_state.ee_pose", np.full(7, 0.2), "no rotation at elements 3 to 6 of row 0"),
        ("robot_commands.pose", np.ones(7), "no rotation at elements 3 to 6 of row 0"),
    ],
)
def test_what_could_not_be_served_costs_its_episode_only(
    tmp_path: Path, signal: str, value: Any, says: str
) -> None:
    root = tmp_path / "raw"
    record(root, 0)
    down = np.array([0.5, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0])
    row = {
        "robot_state.ee_pose": down,
        "object_poses": np.concatenate([down, down]),
        "robot_commands.pose": down,
        **{"grip": np.float64(1.0), "target_grip": np.float64(1.0), signal: value},
    }
    with DatasetWriter(root).new_episode() as episode:
        episode.set_static("grip_convention", GRIP)
        for step in range(12):
            for name, number in row.items():
                episode.append(name, number, step * 10**9 // FPS)
    report = convert_dataset(
        LocalDataset(root), codecs.eepose_state(), tmp_path / "out", FPS, Options(workers=1)
    )
    assert report.episodes == 1
    ((path, reason),) = report.refused
    assert path == str(episode.path)
    assert says in reason


def test_a_damaged_video_costs_its_episode_only(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    record(root, 0)
    damaged = record(root, 1)
    video = damaged / "image.wrist.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    codec = codecs.eepose_absolute(image_size=(64, 64))
    report = convert_dataset(LocalDataset(root), codec, tmp_path / "out", FPS, Options(workers=2))
    assert [source for source, _ in report.refused] == [str(damaged)]
    assert len(opened(tmp_path / "out")) == 13


def test_only_what_the_codec_needs_is_read(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    path = record(root, 0)
    for name in ("image.wrist.mp4", "robot_state.q.parquet"):
        (path / name).write_bytes(b"rubbish")
    assert convert_dataset(LocalDataset(root), codecs.eepose_state(), tmp_path / "o", FPS).frames


def test_a_task_as_long_as_its_episode_stays_one_task(tmp_path: Path) -> None:
    root, task = tmp_path / "raw", "thirteen long"
    record(root, 0, size=None, statics={"task": task})
    convert_dataset(LocalDataset(root), codecs.eepose_state(), tmp_path / "out", FPS)
    assert opened(tmp_path / "out")[3]["task"] == task
    again = Options(task="other", robot_type="arm")
    convert_dataset(LocalDataset(root), codecs.eepose_state(), tmp_path / "again", FPS, again)
    assert opened(tmp_path / "again")[3]["task"] == "other"
    assert opened(tmp_path / "again").meta.robot_type == "arm"


@pytest.mark.parametrize(
    ("codec", "fps", "options", "message"),
    [
        (codecs.eepose_state(), 0, Options(), "--fps=0"),
        (codecs.eepose_state(), 14.5, Options(), "--fps=14.5.*whole number"),
        (codecs.eepose_absolute(image_size=65), 15, Options(), "even sizes, got 65x65"),
        (codecs.eepose_absolute(), 15, Options(vcodec="vp8"), "h264, libsvtav1"),
        (
            codecs.eepose_state(),
            15,
            Options(workers=-1),
            "expected 0 .no worker processes. or more",
        ),
        (codecs.eepose_state(), 15, Options(share=1.5), "--share=1.5"),
        (codecs.eepose_state().parts[0], 15, Options(), "has no action"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(
    raw: LocalDataset, tmp_path: Path, codec: Codec, fps: Any, options: Options, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        convert_dataset(raw, codec, tmp_path / "out", fps, options)
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_left_alone(raw: LocalDataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(StorageError, match="already exists"):
        convert_dataset(raw, codecs.eepose_state(), tmp_path / "out", FPS)
    assert (tmp_path / "out" / "precious").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_share_is_chosen_at_random_and_kept_in_order(tmp_path: Path) -> None:
    for index in range(10):
        record(tmp_path / "raw", index, steps=3, size=None)
    raw, chosen = LocalDataset(tmp_path / "raw"), {}
    for seed in (1, 2):
        options = Options(share=0.4, seed=seed)
        convert_dataset(raw, codecs.eepose_state(), tmp_path / f"{seed}", FPS, options)
        provenance = json.loads((tmp_path / f"{seed}" / "meta" / "provenance.json").read_text())
        chosen[seed] = [episode["source"] for episode in provenance["episodes"]]
        assert chosen[seed] == sorted(chosen[seed])
        assert len(chosen[seed]) == len(opened(tmp_path / f"{seed}").meta.episodes) == 4
        assert (provenance["options"]["share"], provenance["options"]["seed"]) == (0.4, seed)
    assert chosen[1] != chosen[2]


def run(*words: str) -> int:
    return cli.status(COMMANDS, "positronic-to-lerobot", ["convert", *words], prepare=prepare)


def test_the_command_of_the_documentation(
    raw: LocalDataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--dataset.dataset=@positronic.cfg.ds.local",
        f"--dataset.dataset.path={raw.root}",
        f"--dataset.codec={MODULE}.eepose_absolute",
        "--dataset.codec.image_size=[32,48]",
        "--fps=15",
    ]
    assert run(*words, f"--output_dir={tmp_path / 'a'}") == 0
    captured = capfd.readouterr()
    assert "converted 3 episodes, 29 frames" in captured.out
    first, *others = captured.err.splitlines()
    assert first == f"converting 3 episodes to {tmp_path / 'a'}: loading LeRobot ..."
    assert all(line.startswith("converting:") for line in others)
    assert captured.out.splitlines()[-2] == f"dataset: {tmp_path / 'a'}"
    assert opened(tmp_path / "a").features["observation.images.side"]["shape"] == (32, 48, 3)
    assert run(*words, f"--output_dir={tmp_path / 'a'}") == 1
    assert "already exists" in capfd.readouterr().err
    for command, said in (("verify", "is valid: 3 episodes, 29 frames"), ("info", "29")):
        assert cli.status(COMMANDS, "prog", [command, f"--dataset_root={tmp_path / 'a'}"]) == 0
        assert said in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset.dataset.path={tmp}/nowhere"], "no dataset at"),
        (["--dataset.dataset.path={tmp}"], "no finished episodes"),
        (["--dataset.dataset.path={tmp}", f"--dataset.codec={MODULE}.eepose"], "eepose_absolute"),
        (["--dataset.dataset=@positronic.geom.yaw"], "makes a function, not a dataset; give ."),
        (["--dataset=@positronic.cfg.driver.timed"], "no flag --dataset.codec"),
        (["--dataset.dataset.path={tmp}", "--fps=fast"], "--fps=fast: expected int"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    codec, output = f"--dataset.codec={MODULE}.eepose_state", f"--output_dir={tmp_path / 'out'}"
    given = [word.format(tmp=tmp_path) for word in words]
    assert run(codec, output, "--fps=15", *given) != 0
    error = capfd.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert message in error


def test_a_codec_that_is_none_is_one_line(
    raw: LocalDataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [f"--dataset.dataset.path={raw.root}", f"--output_dir={tmp_path / 'out'}", "--fps=15"]
    for codec in (".eepose_stat", "eepose_stat", "7", "@positronic.geom.yaw"):
        assert run(*words, f"--dataset.codec={codec}") == 2
        error = capfd.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        assert "not a codec" in error
        assert re.search(r"; give \..*, \.eepose_absolute, .* or @module\.name", error)
        assert ("did you mean '.eepose_state'?" in error) == ("stat" in codec)


@pytest.mark.parametrize("flag", ["--dataset.codec=.eepose_state", "--codec=eepose_state"])
@pytest.mark.parametrize("place", ["--dataset", "--dataset.dataset", "--dataset.dataset.path"])
def test_a_codec_is_named_shortly_and_the_episodes_by_their_path(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flag: str, place: str
) -> None:
    words = [flag, "--codec.n_objects=3", f"{place}={tmp_path}/raw", "--fps=15"]
    assert run(*words, f"--output_dir={tmp_path / 'out'}") == 1
    assert f"no dataset at {tmp_path}/raw" in capfd.readouterr().err
    assert run(*words[1:], f"--output_dir={tmp_path / 'out'}") == 2
    error = capfd.readouterr().err
    assert "--dataset.codec.n_objects: choose --dataset.codec=.eepose_delta or " in error


@pytest.mark.skipif(not FIXTURE.exists(), reason="the shared recordings are not here")
def test_recordings_of_the_public_version(tmp_path: Path) -> None:
    raw = LocalDataset(FIXTURE)
    codec = codecs.eepose_absolute(image_size=(64, 64))
    report = convert_dataset(raw, codec, tmp_path / "out", FPS, Options(workers=1))
    # Three seconds each, every signal from 2 to 4 ms on, the states until after the last command.
    assert (report.episodes, report.frames) == (2, 92)
    check_rows(opened(tmp_path / "out"), raw, codec)
