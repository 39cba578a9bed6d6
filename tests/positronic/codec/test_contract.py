import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from positronic.codec import Contract, stats_digest
from positronic.errors import ContractError
from positronic.vendors.lerobot.codecs import eepose_absolute, eepose_state


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
