"""HDF5 files made to do harm: each costs a demo, or the file, in one line."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from positronic.dataset import LocalDataset
from positronic.errors import DatasetError, PositronicError
from positronic.importers.demo import read_setup
from positronic.importers.robosuite import NotAbsolute, OscPose
from tests.memory import at_most
from tests.mutations import mutations
from tests.positronic.importers.conftest import CONTROLLER, MakeFile
from tests.positronic.importers.test_robomimic import run

Q = "data/demo_1/obs/robot0_joint_pos"


def external_link(file: h5py.File, other: Path) -> None:
    del file[Q]
    file[Q] = h5py.ExternalLink(str(other), "secret")


def soft_link(file: h5py.File, _: Path) -> None:
    del file[Q]
    file[Q] = h5py.SoftLink("/data/demo_0/obs/robot0_joint_pos")


def external_group(file: h5py.File, other: Path) -> None:
    del file["data/demo_1/obs"]
    file["data/demo_1/obs"] = h5py.ExternalLink(str(other), "/")


def external_data(file: h5py.File, other: Path) -> None:
    del file[Q]
    file.create_dataset(Q, (6, 7), "f8", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual_data(file: h5py.File, other: Path) -> None:
    del file[Q]
    layout = h5py.VirtualLayout((6, 7), "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", (6, 7))
    file.create_virtual_dataset(Q, layout)


def references(file: h5py.File, _: Path) -> None:
    del file[Q]
    file.create_dataset(Q, (6, 7), h5py.ref_dtype)


def declared(file: h5py.File, _: Path) -> None:
    del file[Q]
    file.create_dataset(Q, (6, 10**9), "f8", chunks=(1, 1000))


def wide_chunk(file: h5py.File, _: Path) -> None:
    del file[Q]
    file.create_dataset(Q, (6, 7), "f8", chunks=(6, 4 * 10**7), maxshape=(6, None))


def many_pictures(file: h5py.File, _: Path) -> None:
    for number in range(5):
        name = f"data/demo_1/obs/camera{number}_image"
        file.create_dataset(name, (6, 4000, 7000, 3), "u1", chunks=(1, 64, 64, 3))


def packed(file: h5py.File, _: Path) -> None:
    """300 MB of zeros where 336 bytes are declared."""
    del file[Q]
    data = file.create_dataset(Q, (6, 7), "f8", chunks=(6, 7), compression="gzip")
    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(300 << 20)))


def packed_twice(file: h5py.File, _: Path) -> None:
    del file[Q]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((6, 7))
    plist.set_deflate(9)
    plist.set_deflate(9)
    parent = file["data/demo_1/obs"].id
    h5py.h5d.create(
        parent, b"robot0_joint_pos", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((6, 7)), plist
    )


def beyond_float32(file: h5py.File, _: Path) -> None:
    file[Q][2, 3] = 1e300


def a_group(file: h5py.File, _: Path) -> None:
    del file[Q]
    file.create_group(Q)


def long_doubles(file: h5py.File, _: Path) -> None:
    del file["data/demo_1/rewards"]
    file["data/demo_1/rewards"] = np.zeros(6, np.longdouble)


def no_xml(file: h5py.File, _: Path) -> None:
    file["data/demo_1"].attrs["model_file"] = "<mujoco><joint>"


def many_laughs(file: h5py.File, _: Path) -> None:
    names = [f"<!ENTITY l{i} '{f'&l{i - 1};' * 10 if i else 'ha'}'>" for i in range(12)]
    text = f"<!DOCTYPE mujoco [{''.join(names)}]><mujoco>&l11;</mujoco>"
    file["data/demo_1"].attrs["model_file"] = text


def endless_range(file: h5py.File, _: Path) -> None:
    joint = '<joint name="finger_joint1" type="slide" range="0 inf"/>'
    file["data/demo_1"].attrs["model_file"] = f"<mujoco>{joint * 2}</mujoco>"


def another_hand(file: h5py.File, _: Path) -> None:
    file["data/demo_1"].attrs["model_file"] = "<mujoco><joint name='thumb' type='hinge'/></mujoco>"


def numbers_as_model(file: h5py.File, _: Path) -> None:
    file["data/demo_1"].attrs["model_file"] = np.zeros(9)


@pytest.mark.parametrize(
    "spoil",
    [
        external_link,
        soft_link,
        external_group,
        external_data,
        virtual_data,
        references,
        declared,
        wide_chunk,
        many_pictures,
        packed,
        packed_twice,
        beyond_float32,
        a_group,
        long_doubles,
        no_xml,
        many_laughs,
        endless_range,
        another_hand,
        numbers_as_model,
    ],
)
def test_a_demo_costs_itself_alone(
    spoil: Callable[[h5py.File, Path], None],
    make_file: MakeFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.full((6, 7), 0.125)
    path = make_file(demos=3, spoil=lambda file: spoil(file, other))
    before = sorted(path.parent.iterdir())
    with at_most(1 << 30):
        assert run(path, tmp_path / "raw") == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("skipped:")]
    assert "demo_1" in line
    assert "2 of 3 demos" in out
    kept = [episode["robomimic.demo"] for episode in LocalDataset(tmp_path / "raw")]
    assert kept == ["demo_0", "demo_2"]
    assert sorted(path.parent.iterdir()) == [*before, tmp_path / "raw"]


def test_another_robot_without_a_model_is_refused(
    make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How far its fingers open is not known, and the Panda's would be silently wrong."""

    def sawyer(file: h5py.File) -> None:
        arguments = json.loads(file["data"].attrs["env_args"])
        arguments["env_kwargs"]["robots"] = ["Sawyer"]
        file["data"].attrs["env_args"] = json.dumps(arguments)
        del file["data/demo_0"].attrs["model_file"]

    assert run(make_file(demos=2, spoil=sawyer), tmp_path / "raw") == 1
    assert "has no model of its Sawyer" in capsys.readouterr().out
    assert len(LocalDataset(tmp_path / "raw")) == 1


def test_other_byte_orders_and_rates_are_read(make_file: MakeFile, tmp_path: Path) -> None:
    def swap(file: h5py.File) -> None:
        values = file["data/demo_0/rewards"][()] + 3.5
        del file["data/demo_0/rewards"]
        file["data/demo_0/rewards"] = values.astype(">f8")

    assert run(make_file(demos=1, spoil=swap), tmp_path / "raw") == 0
    rewards = LocalDataset(tmp_path / "raw")[0]["robomimic.rewards"]
    assert rewards.values().tolist() == [3.5] * 6


def setup_of(path: Path) -> Any:
    with h5py.File(path) as file:
        return read_setup(file, {}, False)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"env_name": "Lift", "type": 1}', "'env_kwargs' is missing"),
        ('{"env_name": "Lift", "type": 1, "env_kwargs": {}}', "'env_kwargs.control_freq' is miss"),
        (
            '{"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20.5}}',
            "multiple of 1",
        ),
        (
            '{"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 0}}',
            "greater than 0",
        ),
        ('{"env_name": "\\ud800", "type": 1}', "not Unicode"),
    ],
)
def test_what_all_demos_share_is_read_with_care(make_file: MakeFile, args: str, said: str) -> None:
    path = make_file(spoil=lambda file: file["data"].attrs.__setitem__("env_args", args))
    with pytest.raises(DatasetError, match=said) as refused:
        setup_of(path)
    assert len(str(refused.value).splitlines()) == 1


def test_robosuites_own_recordings_are_refused_with_the_way_to_convert_them(
    make_file: MakeFile,
) -> None:
    """Their 'data' has the attributes env and env_info, and no observations."""

    def spoil(file: h5py.File) -> None:
        del file["data"].attrs["env_args"]
        file["data"].attrs["env"] = "Lift"

    with pytest.raises(
        DatasetError, match=r"like raw robosuite recordings.*convert_robosuite\.py"
    ) as refused:
        setup_of(make_file(spoil=spoil))
    assert "KeyError" not in str(refused.value)


@pytest.mark.parametrize("group", ["data", "mask"])
def test_links_for_all_demos_are_refused(
    group: str, make_file: MakeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_file().rename(tmp_path / "other.hdf5")

    def spoil(file: h5py.File) -> None:
        del file[group]
        file[group] = h5py.ExternalLink(str(other), group)

    assert run(make_file(spoil=spoil), tmp_path / "raw") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "is a link to another location" in line
    assert not (tmp_path / "raw").exists()


def test_damaged_controllers_are_read_or_refused() -> None:
    refused = 0
    for content in mutations(CONTROLLER, 10_000):
        try:
            config = json.loads(content)
        except (ValueError, RecursionError):
            continue
        if isinstance(config, dict):
            try:
                OscPose.from_config(config).targets(np.eye(1, 7, 3), np.ones((1, 7)))
            except NotAbsolute:
                refused += 1
    assert refused > 1000


def test_damaged_files_are_read_or_refused(make_file: MakeFile, tmp_path: Path) -> None:
    path = make_file(demos=1, steps=2)
    whole = path.read_bytes()
    chance = np.random.default_rng(3)
    for place in chance.integers(0, min(len(whole), 20_000), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place % 8)
        path.write_bytes(damaged)
        try:
            with h5py.File(path) as file:
                names = list(file["data"])
        except (OSError, KeyError, RuntimeError, ValueError):
            continue
        assert names is not None
        assert run(path, tmp_path / f"raw-{place}") in (0, 1, 2), PositronicError
