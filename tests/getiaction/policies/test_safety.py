"""Limits on a checkpoint's documents, tested without importing LeRobot."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from foundation.documents import InvalidDocument
from getiaction.policies import safety
from getiaction.policies.safety import (
    CONFIG,
    POSTPROCESSOR,
    PREPROCESSOR,
    READER,
    PolicyConfig,
    Processor,
    read_config,
    read_processor,
    require_safe,
)
from tests.mutations import mutations

VECTOR = {"type": "STATE", "shape": [5]}
NORMS = {"STATE": "MEAN_STD", "ACTION": "MIN_MAX"}
CONFIG_DOCUMENT = {
    "type": "act",
    "n_obs_steps": 1,
    "input_features": {"observation.state": VECTOR},
    "output_features": {"action": {"type": "ACTION", "shape": [6]}},
    "normalization_mapping": NORMS,
    "chunk_size": 12,
    "n_action_steps": 4,
    "device": "cpu",
    "use_peft": False,
    "pretrained_path": None,
    "vision_backbone": "resnet18",
}
STATE = "policy_preprocessor_step_3_normalizer_processor.safetensors"
PRE_DOCUMENT = {
    "name": "policy_preprocessor",
    "steps": [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "device_processor", "config": {"device": "cpu"}},
        {
            "registry_name": "normalizer_processor",
            "config": {
                "eps": 1e-8,
                "features": {"observation.state": VECTOR},
                "norm_map": NORMS,
            },
            "state_file": STATE,
        },
    ],
}
POST_DOCUMENT = {
    "name": "policy_postprocessor",
    "steps": [
        {
            "registry_name": "unnormalizer_processor",
            "config": {"features": {"action": VECTOR}, "norm_map": NORMS},
            "state_file": "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
        },
        {"registry_name": "device_processor", "config": {"device": "cpu"}},
    ],
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrained_model"
    folder.mkdir()
    for name, document in (
        (CONFIG, CONFIG_DOCUMENT),
        (PREPROCESSOR, PRE_DOCUMENT),
        (POSTPROCESSOR, POST_DOCUMENT),
    ):
        (folder / name).write_text(json.dumps(document))
    for document in (PRE_DOCUMENT, POST_DOCUMENT):
        for step in Processor.model_validate(document).steps:
            if step.state_file:
                (folder / step.state_file).write_bytes(b"")
    return folder


def with_step(*steps: Any) -> str:
    return json.dumps({**PRE_DOCUMENT, "steps": [*PRE_DOCUMENT["steps"], *steps]})


def test_what_lerobot_writes_is_let_through(checkpoint: Path) -> None:
    require_safe(checkpoint)
    assert read_config(checkpoint / CONFIG).chunk_size == 12
    step = read_processor(checkpoint / PREPROCESSOR).step("normalizer_processor")
    assert step is not None
    assert step.settings("here").features["observation.state"].shape == [5]
    assert step.state_file == STATE


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"class": "subprocess.Popen", "config": {"args": ["true"]}}, "class 'subprocess.Popen'"),
        ({"class": "canary_of_safety.Step"}, "step 4 names the class 'canary_of_safety.Step'"),
        ({"registry_name": "to_batch_processor", "class": "os.system"}, "the class 'os.system'"),
        ({}, "step 4 names the class 'None'"),
        ({"registry_name": "canary"}, "step 4, 'canary', may load something"),
        ({"registry_name": "tokenizer_processor"}, "'tokenizer_processor'.*trust_checkpoint"),
        ({"registry_name": "action_tokenizer_processor"}, "'action_tokenizer_processor'"),
        ({"registry_name": "reward_classifier_processor"}, "'reward_classifier_processor'"),
        ({"registry_name": "inverse_kinematics_ee_to_joints"}, "inverse_kinematics"),
        ({"registry_name": "\x1b[2J" * 40}, r"\\x1b\[2J"),
        ({"registry_name": 3}, "steps.4.registry_name"),
        ({"registry_name": "device_processor", "config": []}, "steps.4.config"),
        ({"registry_name": "device_processor", "state_file": "../x.safetensors"}, "plain relative"),
        ({"registry_name": "device_processor", "state_file": "/x.safetensors"}, "plain relative"),
        ({"registry_name": "device_processor", "state_file": "a/x.safetensors"}, "plain name"),
        ({"registry_name": "device_processor", "state_file": "config.json"}, "plain name"),
        ({"registry_name": "device_processor", "state_file": "no.safetensors"}, "is missing"),
        ("to_batch_processor", "steps.4"),
    ],
)
def test_a_step_that_could_do_more_is_refused(checkpoint: Path, step: Any, expected: str) -> None:
    (checkpoint / PREPROCESSOR).write_text(with_step(step))
    before = set(sys.modules)

    with pytest.raises(InvalidDocument, match=expected) as refused:
        require_safe(checkpoint)

    assert "\n" not in str(refused.value)
    assert not {"canary_of_safety", "lerobot"} & (set(sys.modules) - before)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "pi0_fast"},
        {"type": "gaussian_actor", "vision_encoder_name": "somebody/code"},
        {"type": "canary"},
        {"type": "groot"},
        {"type": "smolvla", "vlm_model_name": "./model"},
        {"use_peft": True},
    ],
)
def test_a_policy_that_loads_from_elsewhere_has_to_be_trusted(
    checkpoint: Path, change: dict[str, Any]
) -> None:
    (checkpoint / CONFIG).write_text(json.dumps({**CONFIG_DOCUMENT, **change}))
    with pytest.raises(InvalidDocument, match=r"config\.json.*--trust_checkpoint"):
        require_safe(checkpoint)
    require_safe(checkpoint, trusted=True)


def test_an_adapter_has_to_be_trusted(checkpoint: Path) -> None:
    (checkpoint / safety.ADAPTER).write_text("{}")
    with pytest.raises(InvalidDocument, match=r"adapter_config\.json.*--trust_checkpoint"):
        require_safe(checkpoint)


def test_trust_lets_no_class_be_imported(checkpoint: Path) -> None:
    (checkpoint / PREPROCESSOR).write_text(with_step({"registry_name": "tokenizer_processor"}))
    require_safe(checkpoint, trusted=True)
    (checkpoint / PREPROCESSOR).write_text(with_step({"class": "os.system"}))
    with pytest.raises(InvalidDocument, match=r"'os\.system'"):
        require_safe(checkpoint, trusted=True)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "[]",
        "{}",
        "null",
        '{"type": {"a": 1}}',
        '{"type": "act", "chunk_size": 1e400}',
        '{"type": "act", "chunk_size": -1}',
        '{"type": "act", "n_action_steps": 0}',
        '{"type": "act", "input_features": {"a": {"type": "STATE", "shape": "5"}}}',
        '{"type": "act", "input_features": {"a": {"type": "STATE", "shape": [99999999]}}}',
        '{"type": "act", "input_features": {"a": {"type": "CODE", "shape": [3]}}}',
        '{"type": "act", "dropout": NaN}',
        '{"type": "act", "tags": "' + "a" * (5 << 20) + '"}',
        "\x00",
    ],
)
def test_a_config_that_is_none_is_refused_in_a_line(checkpoint: Path, content: str) -> None:
    (checkpoint / CONFIG).write_text(content)
    with pytest.raises(InvalidDocument, match=r"config\.json") as refused:
        require_safe(checkpoint)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("name", [CONFIG, PREPROCESSOR, POSTPROCESSOR, STATE])
@pytest.mark.parametrize("make", [pipe, endless, sparse])
def test_what_is_no_file_or_too_large_is_not_read(checkpoint: Path, name: str, make: Any) -> None:
    (checkpoint / name).unlink()
    make(checkpoint / name)
    with pytest.raises(InvalidDocument, match="regular file|larger than"):
        require_safe(checkpoint)


@pytest.mark.parametrize("linked", [CONFIG, STATE])
def test_links_as_the_hubs_cache_has_them_are_followed(checkpoint: Path, linked: str) -> None:
    blob = checkpoint.parent / "blob"
    (checkpoint / linked).rename(blob)
    (checkpoint / linked).symlink_to(blob)
    require_safe(checkpoint)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (CONFIG_DOCUMENT, PolicyConfig),
        (PRE_DOCUMENT, Processor),
        (POST_DOCUMENT, Processor),
    ],
)
def test_damaged_documents_are_read_or_refused(
    document: Any, kind: type[PolicyConfig | Processor]
) -> None:
    refused: list[str] = []
    for content in mutations(document, 10_000, seed=12):
        try:
            found = READER.parse_json(content, kind, "here")
            found.require_allowed("here")
        except InvalidDocument as error:
            refused.append(str(error))
    assert len(refused) > 5_000
    assert not any("\n" in line for line in refused)
