import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.codec import Contract, stats_digest
from positronic.codec.contract import told
from positronic.errors import CodecError, ContractError
from positronic.vendors.lerobot.codecs import eepose_absolute, eepose_state
from tests.mutations import DEEP, mutations


def stats(shift: float = 0.0) -> dict[str, Any]:
    values = np.arange(8, dtype=np.float64) / 3 + shift
    return {
        "action": {"mean": values, "std": values + 1, "count": np.array([5])},
        "observation.state": {"mean": -values, "std": values + 2},
        "index": {"mean": np.array([2.0])},
    }


def contract(**changes: Any) -> Contract:
    return Contract.of(eepose_state(), fps=15, stats=stats()).replace(**changes)


def test_a_file_gives_back_the_same_contract(tmp_path: Path) -> None:
    contract().save(tmp_path)
    assert Contract.load(tmp_path) == contract()
    assert Contract.load(tmp_path / "contract.json") == contract()
    assert [file.name for file in tmp_path.iterdir()] == ["contract.json"]


def test_the_codec_can_be_made_from_it() -> None:
    codec = eepose_absolute(image_size=(64, 48))
    made = Contract.of(codec, fps=15)
    assert made.make_codec() == codec
    assert made.codec["name"] == "eepose_absolute"
    assert made.inputs == ["robot_state.ee_pose", "grip", "image.wrist", "image.exterior"]
    assert made.grip == {"open": 1.0, "closed": 0.0}
    assert made.chunk_size is None


def test_fields_of_a_newer_version_are_left_out() -> None:
    assert Contract.from_json(contract().to_json() | {"colour": "red"}) == contract()


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '"x"'])
def test_a_file_that_is_no_contract_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "contract.json").write_text(text)
    with pytest.raises(ContractError, match=str(tmp_path / "contract.json")):
        Contract.load(tmp_path)


def test_a_missing_file_is_refused_with_where_contracts_come_from(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="does not exist; .*convert"):
        Contract.load(tmp_path / "nowhere")


def test_every_difference_is_listed_in_words() -> None:
    other = contract(fps=10, chunk_size=100, versions={"lerobot": "9"})
    other.features["action"]["shape"] = [7]
    found = contract().differences(other)
    assert "fps: 15 against 10" in found
    assert "chunk_size: nothing against 100" in found
    assert "features.action.shape: [8] against [7]" in found
    assert any(line.startswith("versions.lerobot:") for line in found)
    assert contract().differences(contract()) == []


def test_the_order_of_features_counts() -> None:
    reversed_features = dict(reversed(contract().features.items()))
    assert contract().differences(contract(features=reversed_features)) == [
        "order of features: observation.state, observation.environment_state, action"
        " against action, observation.environment_state, observation.state"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"fps": 10},
        {"codec": {"name": "other", "spec": {}}},
        {"inputs": ["grip"]},
        {"grip": {"open": 0.0, "closed": 1.0}},
        {"pose": {}},
        {"stats_digest": "0"},
        {"feature_digests": {"action": "0"}},
        {"features": {}},
    ],
)
def test_what_was_trained_must_be_the_same(changes: dict[str, Any]) -> None:
    name = next(iter(changes))
    with pytest.raises(ContractError, match=f"the checkpoint and the data disagree: .*{name}"):
        contract().require_same(contract(**changes), "the checkpoint", "the data")
    contract().require_same(contract(**changes), "a", "b", ignore=[name])


def test_versions_storage_and_what_is_left_open_do_not_bind() -> None:
    pictures = json.loads(json.dumps(contract().features).replace('"video"', '"image"'))
    other = contract(versions={}, chunk_size=50, n_action_steps=10, features=pictures)
    contract().require_same(other, "the data", "the checkpoint")
    with pytest.raises(ContractError, match="chunk_size: 50 against 100"):
        other.require_same(other.replace(chunk_size=100), "one", "another")


def test_digest_is_the_same_however_the_numbers_were_stored(tmp_path: Path) -> None:
    names = ["action", "observation.state"]
    digest = stats_digest(stats(), names)
    as_json = json.loads(
        json.dumps(
            {
                name: {key: value.tolist() for key, value in feature.items()}
                for name, feature in reversed(stats().items())
            }
        )
    )
    as_float32 = {
        name: {key: np.asarray(value, np.float32).reshape(-1, 1) for key, value in feature.items()}
        for name, feature in stats().items()
    }
    assert stats_digest(as_json, names) == digest
    assert stats_digest(as_float32, names) == digest
    assert stats_digest(stats() | {"index": {"mean": [9.0]}}, names) == digest
    assert stats_digest(stats(1e-3), names) != digest
    swapped = stats()
    swapped["action"], swapped["observation.state"] = (
        swapped["observation.state"],
        swapped["action"],
    )
    assert stats_digest(swapped, names) != digest


@pytest.mark.parametrize(
    "broken",
    [{"mean": "x"}, {"mean": [[1], [1, 2]]}, {"mean": {"a": 1}}, {"mean": 10**400}, 5, "mean", [1]],
)
def test_what_are_no_statistics_has_no_digest(broken: Any) -> None:
    with pytest.raises(ContractError, match="action.*; convert again"):
        stats_digest({"action": broken})
    assert stats_digest({"action": {"mean": [1e300]}}) != stats_digest({"action": {"mean": [1]}})


def test_each_feature_has_a_digest_of_its_own() -> None:
    changed = stats()
    changed["action"]["mean"] = changed["action"]["mean"] + 1
    one, other = contract(), contract().with_statistics(changed)
    assert one.feature_digests is not None
    assert other.feature_digests is not None
    assert set(one.feature_digests) == {"action", "observation.state"}
    changed_ones = {k for k, v in one.feature_digests.items() if other.feature_digests[k] != v}
    assert changed_ones == {"action"}
    assert one.stats_digest != other.stats_digest
    with pytest.raises(ContractError, match="disagree: stats_digest: .*; feature_digests.action:"):
        one.require_same(other, "a", "b")
    # A contract written before they were has none.
    one.require_same(contract(feature_digests=None), "a", "b")


def test_another_codec_is_named_instead_of_all_that_it_makes() -> None:
    other = Contract.of(eepose_absolute(), fps=10, stats=stats())
    with pytest.raises(ContractError) as caught:
        contract().require_same(other, "the checkpoint", "--codec")
    assert str(caught.value) == (
        "the checkpoint and --codec disagree: codec 'eepose_state' against 'eepose_absolute'; "
        "fps: 15 against 10. Use the codec, dataset and checkpoint that belong together"
    )


FEATURE = {"dtype": "float32", "shape": [8], "names": ["actions"]}
PICTURE = {"dtype": "video", "shape": [64, 64, 3], "names": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": float("nan")}, "holds the number nan; expected finite numbers"),
        ({"fps": float("inf")}, "holds the number inf"),
        ({"fps": -15}, "field 'fps': expected greater than or equal to 0.1, found -15"),
        ({"fps": 0}, "field 'fps'"),
        ({"fps": 1e-300}, "field 'fps': expected greater than or equal to 0.1, found 1e-300"),
        ({"fps": 1e6}, "field 'fps': expected less than or equal to 1000"),
        ({"fps": "15"}, "field 'fps'"),
        ({"fps": True}, "field 'fps'"),
        ({"fps": None}, "field 'fps'"),
        ({"n_action_steps": 0}, "field 'n_action_steps': expected greater than or equal to 1"),
        ({"n_action_steps": -1}, "field 'n_action_steps'"),
        ({"chunk_size": 0}, "field 'chunk_size'"),
        ({"chunk_size": 10**9}, "field 'chunk_size'"),
        ({"chunk_size": 2.5}, "field 'chunk_size'"),
        ({"chunk_size": True}, "field 'chunk_size'"),
        ({"chunk_size": 10, "n_action_steps": 11}, "n_action_steps is 11, expected at most the"),
        ({"codec": None}, "field 'codec'"),
        ({"codec": {"name": "x"}}, "field 'codec.spec' is missing"),
        ({"codec": {"name": 1, "spec": {}}}, "field 'codec.name'"),
        ({"codec": {"name": "x", "spec": []}}, "field 'codec.spec'"),
        ({"inputs": "grip"}, "field 'inputs'"),
        ({"inputs": [1]}, "field 'inputs.0'"),
        ({"inputs": ["\x1b]0;title\x07"]}, "field 'inputs.0': expected 1 to 200 printable"),
        ({"inputs": ["x" * 201]}, "field 'inputs.0'"),
        ({"features": []}, "field 'features'"),
        ({"features": {"action": FEATURE | {"shape": [-8]}}}, "field 'features.action.shape.0'"),
        ({"features": {"action": FEATURE | {"shape": [10**9]}}}, "expected at most 100000 numbers"),
        ({"features": {"action": FEATURE | {"shape": []}}}, "field 'features.action.shape'"),
        ({"features": {"action": FEATURE | {"shape": "8"}}}, "field 'features.action.shape'"),
        ({"features": {"action": FEATURE | {"dtype": "object"}}}, "field 'features.action.dtype'"),
        ({"features": {"action": FEATURE | {"names": 3}}}, "field 'features.action.names'"),
        ({"features": {"a": PICTURE | {"shape": [10**9, 1, 3]}}}, "expected an image shape"),
        ({"features": {"a": PICTURE | {"shape": [64, 64]}}}, "expected an image shape"),
        ({"features": {"../../x": FEATURE}}, "expected the name of a feature"),
        ({"features": {"action": 5}}, "field 'features.action'"),
        ({"stats_digest": "0"}, "field 'stats_digest'"),
        ({"stats_digest": "Z" * 64}, "field 'stats_digest'"),
        ({"feature_digests": {"action": 5}}, "field 'feature_digests.action'"),
        ({"feature_digests": ["0"]}, "field 'feature_digests'"),
        ({"pose": 3}, "field 'pose'"),
        ({"grip": []}, "field 'grip'"),
        ({"versions": {"numpy": 2}}, "field 'versions.numpy'"),
        ({"versions": {"numpy": "\ud800"}}, "not Unicode"),
    ],
)
def test_a_contract_is_validated_when_it_is_read(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    document = contract().to_json() | changes
    (tmp_path / "contract.json").write_text(json.dumps(document))
    with pytest.raises(ContractError, match=message) as caught:
        Contract.load(tmp_path)
    assert str(tmp_path / "contract.json") in str(caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(ContractError, match=message):
        Contract.from_json(document)
    if changes not in ({"fps": None}, {"codec": None}):
        # A server's is held to the same; a public one may leave anything out.
        with pytest.raises(ContractError, match=message):
            told(changes, "the server's contract")


@pytest.mark.parametrize("document", [[], 5, "contract", None, True])
def test_what_is_no_object_is_no_contract(document: Any) -> None:
    with pytest.raises(ContractError, match="the contract"):
        Contract.from_json(document)


def test_what_a_server_leaves_out_is_not_missed() -> None:
    assert told(None, "the server's contract") == {}
    assert told({"inputs": ["grip"]}, "the server's contract") == {"inputs": ["grip"]}
    whole = contract(chunk_size=100, n_action_steps=100).to_json()
    assert told(whole, "the server's contract") == whole
    with pytest.raises(ContractError, match="the server's contract"):
        told(["grip"], "the server's contract")


def test_a_contract_whose_codec_makes_something_else_is_refused() -> None:
    other = contract(features=contract().features | {"extra": FEATURE})
    with pytest.raises(ContractError, match=r"states the features .*, but its codec makes"):
        other.require_made(other.make_codec())
    smaller = contract()
    smaller.codec["spec"]["parts"][1]["n_objects"] = 1
    with pytest.raises(ContractError, match=r"environment_state.*\[10\].*makes .*\[5\]"):
        smaller.require_made(smaller.make_codec())


def _deep(text: str) -> str:
    return json.dumps(contract().to_json())[:-1] + f', "pose": {text}}}'


ATTACKS = {
    "nested lists": DEEP[0],
    "nested objects": DEEP[1],
    "nested in a field that is free": _deep('{"a":' * 100 + "1" + "}" * 100),
    "a number of 100,000 digits": _deep("9" * 100_000),
    "a hundred thousand values": _deep('{"a": [' + "1," * 300_000 + "1]}"),
    "two megabytes": json.dumps(contract().to_json() | {"pose": {"a": "x" * (2 << 20)}}),
    "names that a terminal obeys": json.dumps(contract().to_json() | {"\x1b[2J": 1, "fps": 0}),
    "no text": "\x00\x01\x02",
    "a class": json.dumps({"__class__": "subprocess.Popen", "args": ["touch", "/tmp/x"]}),
    "a feature as a path": json.dumps(
        contract().to_json() | {"features": {"../../../../tmp/x": FEATURE}}
    ),
    "an absolute feature": json.dumps(contract().to_json() | {"features": {"/tmp/x": FEATURE}}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_malicious_contract_is_one_line_and_touches_nothing(tmp_path: Path, attack: str) -> None:
    place = tmp_path / "dataset" / "meta"
    place.mkdir(parents=True)
    (place / "contract.json").write_text(ATTACKS[attack])
    before = _files(tmp_path)
    started = time.process_time()
    with pytest.raises(ContractError) as caught:
        Contract.load(place)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert time.process_time() - started < 5
    assert _files(tmp_path) == before


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "link to itself", "unreadable"])
def test_what_is_no_plain_file_is_never_waited_for(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "contract.json"
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case "directory":
            (file / "contract.json").mkdir(parents=True)
        case "link to itself":
            file.symlink_to(file)
        case _:
            file.write_bytes(b"\xff\xfe{")
    with pytest.raises(ContractError, match="contract.json"):
        Contract.load(tmp_path)


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "subprocess.Popen", "args": ["touch", "/tmp/x"]},
        {"kind": "image", "key": "a", "source": "b", "size": [10**9, 10**9]},
        {"kind": "object_poses", "n_objects": 10**9},
        {"kind": "vector", "key": "../../x", "signals": [["grip", 1]]},
        {"kind": "vector", "key": "a", "signals": [["grip", 10**9]]},
        {"kind": "parallel", "parts": [{"kind": "parallel", "parts": "ab"}]},
        {"kind": "sequential", "stage": {"kind": "flip_grip"}, "codec": {"kind": "flip_grip"}},
        {"kind": {"kind": "vector"}},
    ],
)
def test_a_malicious_codec_in_a_contract_is_one_line(tmp_path: Path, spec: Any) -> None:
    contract(codec={"name": "eepose_state", "spec": spec}).save(tmp_path)
    before = _files(tmp_path)
    with pytest.raises(CodecError) as caught:
        Contract.load(tmp_path).make_codec()
    assert str(caught.value).isprintable()
    assert _files(tmp_path) == before


def test_ten_thousand_damaged_contracts_are_read_or_refused() -> None:
    document = contract(chunk_size=100, n_action_steps=50).to_json()
    fine, messages = 0, []
    for damaged in mutations(document, 10_000, seed=12):
        try:
            found = Contract.parse(damaged, "contract.json")
            found.make_codec()
        except (ContractError, CodecError) as error:
            messages.append(str(error))
        else:
            fine += 1
            assert 0 < found.fps <= 1000
            assert Contract.from_json(found.to_json()) == found
    assert all(message.isprintable() and len(message) < 1000 for message in messages)
    assert fine > 100  # not all damage matters


def _files(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))}
