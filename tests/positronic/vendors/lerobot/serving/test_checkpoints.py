import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.utils.constants import IMAGENET_STATS
from safetensors.numpy import load_file, save_file

from foundation import storage
from foundation.errors import FoundationError
from positronic.codec import Codec, Contract
from positronic.codec.documents import older_form
from positronic.errors import CheckpointError, ContractError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.checkpoint_directory import CheckpointDirectory
from tests.positronic.vendors.lerobot.small_policy import FPS, make_run, statistics
from tests.s3 import Faulty


def state_codec() -> Codec:
    codec: Codec = codecs.eepose_state()
    return codec


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "stacking", state_codec(), (10000, 20000))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "stacking", symlinks=True))


def steps(root: Path, *names: str) -> Path:
    for name in names:
        (root / "checkpoints" / name / "pretrained_model").mkdir(parents=True)
    return root


def test_the_run_and_its_checkpoints_folder_are_both_accepted(trained: Path) -> None:
    for path in (trained, f"{trained}/", trained / "checkpoints", f"{trained}/checkpoints/"):
        directory = CheckpointDirectory(path)
        assert directory.ids() == ["010000", "020000"]
        assert directory.name == "stacking"


def test_steps_are_sorted_by_number_and_other_names_left_out(tmp_path: Path) -> None:
    root = steps(tmp_path, "9000", "010000", "100000", "tmp", "-5", "0x1", "²")
    (root / "checkpoints" / "last").symlink_to("100000")
    (root / "checkpoints" / "123").write_text("a file")
    assert CheckpointDirectory(root).ids() == ["9000", "010000", "100000"]


@pytest.mark.parametrize(
    ("requested", "found"),
    [
        (None, "020000"),
        ("10000", "010000"),
        (10000, "010000"),
        ("010000", "010000"),
        ("9000", "9000"),
    ],
)
def test_padded_and_bare_numbers_mean_the_same(
    tmp_path: Path, requested: str | int | None, found: str
) -> None:
    assert (
        CheckpointDirectory(steps(tmp_path, "9000", "010000", "020000")).resolve(requested) == found
    )


@pytest.mark.parametrize("requested", ["30000", "first", "../010000", "a/b", "", 7])
def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path, requested: str | int) -> None:
    directory = CheckpointDirectory(steps(tmp_path, "010000", "020000"))
    with pytest.raises(CheckpointError) as error:
        directory.resolve(requested)
    assert str(error.value) == (
        f"Checkpoint not found: {requested}. Available: ['010000', '020000']"
    )


def test_five_thousand_digits_are_no_step(tmp_path: Path) -> None:
    directory = CheckpointDirectory(steps(tmp_path, "010000", "020000"))
    with pytest.raises(CheckpointError, match=r"Checkpoint not found: 9999.*Available: ") as error:
        directory.resolve("9" * 5000)
    assert len(str(error.value)) < 200


def test_a_directory_without_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a directory; --checkpoints_dir is"):
        CheckpointDirectory(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=f"No checkpoints found in {tmp_path}; expected"):
        CheckpointDirectory(tmp_path)
    directory = CheckpointDirectory(steps(tmp_path / "run", "1"))
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(CheckpointError) as error:
        directory.resolve()
    assert str(error.value) == "No checkpoints found in run"


@pytest.mark.parametrize("inner", ["010000", "010000/pretrained_model", "first/pretrained_model"])
def test_one_checkpoint_is_served_alone(trained: Path, inner: str) -> None:
    first = trained / "checkpoints/first"
    if not first.exists():
        first.symlink_to("010000")  # as `last` leads to the last one
    directory = CheckpointDirectory(trained / "checkpoints" / inner)
    assert (directory.name, directory.ids(), directory.resolve()) == (
        "stacking",
        ["010000"],
        "010000",
    )
    assert directory.resolve(10000) == "010000"
    assert directory.older("010000") == []
    checkpoint = directory.checkpoint("010000")
    assert checkpoint.label == "stacking/checkpoints/010000"
    assert checkpoint.verify() == CheckpointDirectory(trained).checkpoint("010000").verify()
    with pytest.raises(CheckpointError, match=r"not found: 20000. Available: \['010000'\]"):
        directory.resolve("20000")


def test_a_directory_of_runs_is_answered_with_them(trained: Path) -> None:
    with pytest.raises(CheckpointError, match=f"; did you mean {trained}\\?$"):
        CheckpointDirectory(trained.parent)


def test_a_whole_checkpoint_gives_its_contract(trained: Path) -> None:
    directory = CheckpointDirectory(trained)
    checkpoint = directory.checkpoint("010000")
    assert checkpoint.label == "stacking/checkpoints/010000"
    assert not checkpoint.takes_task
    contract = checkpoint.verify()
    assert contract == checkpoint.verify(state_codec())
    assert contract.make_codec() == state_codec()
    assert contract.fps == FPS


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "policy_preprocessor.json",
        "policy_postprocessor.json",
        "policy_preprocessor_step_3_normalizer_processor.safetensors",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    ],
)
def test_a_missing_file_is_named_without_the_path_of_the_machine(run: Path, name: str) -> None:
    (run / "checkpoints/020000/pretrained_model" / name).unlink()
    with pytest.raises(CheckpointError) as error:
        CheckpointDirectory(run).checkpoint("020000").verify()
    assert str(error.value).startswith("checkpoint stacking/checkpoints/020000 is incomplete: ")
    assert name in str(error.value)
    assert str(run) not in str(error.value)


@pytest.mark.parametrize("damage", ["", "[1]", "{", "\udcff"])
@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json", "contract.json"])
def test_a_damaged_file_is_named(run: Path, name: str, damage: str) -> None:
    file = run / "checkpoints/020000/pretrained_model" / name
    file.write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.raises(FoundationError, match=name):
        CheckpointDirectory(run).checkpoint("020000").verify()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"\x04" + b"\0" * 7 + b"{[}]"])
def test_damaged_statistics_are_named(run: Path, damage: bytes) -> None:
    name = "policy_preprocessor_step_3_normalizer_processor.safetensors"
    (run / "checkpoints/020000/pretrained_model" / name).write_bytes(damage)
    with pytest.raises(CheckpointError, match=f"{name} with the normalisation statistics is"):
        CheckpointDirectory(run).checkpoint("020000").verify()


@pytest.mark.parametrize("key", ["observation.state", "observation.environment_state", "action"])
def test_statistics_that_are_missing_are_refused_not_passed_over(tmp_path: Path, key: str) -> None:
    run = make_run(tmp_path / "run", state_codec(), (1,), without_statistics=key)
    with pytest.raises(CheckpointError, match=f"no normalisation statistics '{key}.mean'"):
        CheckpointDirectory(run).checkpoint("000001").verify()


def change_statistics(path: Path, name: str, key: str, value: Any) -> None:
    file = path / name
    tensors = load_file(file)
    tensors[key] = np.broadcast_to(np.float32(value), tensors[key].shape).copy()
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("policy_preprocessor_step_3_normalizer_processor", "policy_preprocessor.json"),
        ("policy_postprocessor_step_0_unnormalizer_processor", "policy_postprocessor.json"),
    ],
)
def test_statistics_that_were_changed_are_refused_by_name(run: Path, name: str, says: str) -> None:
    checkpoint = CheckpointDirectory(run).checkpoint("020000")
    change_statistics(checkpoint.path, f"{name}.safetensors", "action.std", 0.21)
    with pytest.raises(
        ContractError, match=rf"000 was changed: .* statistics of action \({says}\)"
    ):
        checkpoint.verify()
    # An older contract knows all of them together only.
    contract = Contract.load(checkpoint.path)
    contract.replace(feature_digests=None).save(checkpoint.path)
    with pytest.raises(ContractError, match="statistics of one of observation.state, observ"):
        checkpoint.verify()
    contract.replace(feature_digests=None, stats_digest=None).save(checkpoint.path)
    assert checkpoint.verify()


def test_imagenets_statistics_may_stand_for_those_of_images_only(tmp_path: Path) -> None:
    codec = codecs.eepose_absolute(image_size=32)
    run = make_run(tmp_path / "run", codec, (1,))
    checkpoint = CheckpointDirectory(run).checkpoint("000001")
    for name in ("preprocessor_step_3_normalizer", "postprocessor_step_0_unnormalizer"):
        for image in ("left", "side"):
            for statistic, values in IMAGENET_STATS.items():
                key = f"observation.images.{image}.{statistic}"
                change_statistics(
                    checkpoint.path, f"policy_{name}_processor.safetensors", key, values
                )
    assert checkpoint.verify()
    name = "policy_preprocessor_step_3_normalizer_processor.safetensors"
    change_statistics(checkpoint.path, name, "observation.images.side.mean", 0.5)
    with pytest.raises(ContractError, match="statistics of observation.images.side"):
        checkpoint.verify()


def test_what_is_normalised_by_can_be_looked_at(trained: Path) -> None:
    found = CheckpointDirectory(trained).checkpoint("020000").statistics
    expected = statistics(state_codec())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].keys() == values.keys()
        for statistic, value in values.items():
            np.testing.assert_array_equal(found[name][statistic], value)


def test_another_codec_is_refused_by_both_names(trained: Path) -> None:
    with pytest.raises(
        ContractError,
        match="was trained with codec 'eepose_state', not with --codec 'joints_absolute'; leave",
    ):
        CheckpointDirectory(trained).checkpoint("020000").verify(codecs.joints_absolute())


@pytest.mark.parametrize(
    ("made", "asked", "difference"),
    [
        (
            codecs.eepose_absolute(image_size=64),
            codecs.eepose_absolute(),
            "parts.observation.images.left.size: [64, 64] against [224, 224]",
        ),
        (
            codecs.eepose_absolute(),
            codecs.eepose_absolute(quat_reference=(0.0, 1.0, 0.0, 0.0)),
            "parts.observation.state.quat_reference: [0.23, 0.89, 0.37, 0.1] against"
            " [0.0, 1.0, 0.0, 0.0]",
        ),
        (
            codecs.eepose_state(n_objects=3),
            codecs.eepose_state(),
            "parts.observation.environment_state.n_objects: 3 against 2",
        ),
    ],
)
def test_another_parameter_of_the_same_codec_is_named_with_both_values(
    run: Path, made: Codec, asked: Codec, difference: str
) -> None:
    path = run / "checkpoints/020000/pretrained_model"
    Contract.of(made, fps=15).save(path)
    with pytest.raises(ContractError) as caught:
        CheckpointDirectory(run).checkpoint("020000").verify(asked)
    assert f"was trained with another '{asked.name}' than that of --codec" in str(caught.value)
    assert difference in str(caught.value)


def test_a_checkpoint_of_an_older_version_keeps_the_signs_it_was_trained_on(run: Path) -> None:
    path = run / "checkpoints/020000/pretrained_model"
    older = older_form(state_codec())
    signed = Contract.load(path)
    Contract.of(older, fps=15).save(path)
    contract = CheckpointDirectory(run).checkpoint("020000").verify(state_codec())
    assert contract.make_codec() == older
    # A codec that was named with other signs than the checkpoint's is another one.
    signed.save(path)
    with pytest.raises(ContractError, match=r"quat_reference: \[.*\] against nothing"):
        CheckpointDirectory(run).checkpoint("020000").verify(older)


def test_a_contract_that_does_not_fit_the_policy_is_refused(run: Path) -> None:
    checkpoint = CheckpointDirectory(run).checkpoint("020000")
    three = Contract.of(codecs.eepose_state(n_objects=3), fps=15)
    three.save(checkpoint.path)
    with pytest.raises(
        ContractError, match=r"environment_state of shape \[10\], but codec '\w+' makes \[15\]"
    ):
        checkpoint.verify()
    Contract.of(codecs.eepose_absolute(), fps=15).save(checkpoint.path)
    with pytest.raises(ContractError, match="'eepose_absolute' does not make it"):
        checkpoint.verify()
    Contract.of(state_codec(), fps=15).replace(chunk_size=99).save(checkpoint.path)
    with pytest.raises(ContractError, match="chunk_size is 10 in config.json and 99 in contract"):
        checkpoint.verify()


def test_a_checkpoint_without_a_contract_needs_a_rate_and_a_codec_that_fits(run: Path) -> None:
    checkpoint = CheckpointDirectory(run).checkpoint("020000")
    (checkpoint.path / "contract.json").unlink()
    for codec in (None, state_codec()):
        with pytest.raises(ContractError, match="it has no contract.json, .* as in --fps=30"):
            checkpoint.verify(codec)
    assert checkpoint.verify(state_codec(), fps=10).fps == 10
    assert checkpoint.verify(fps=10).codec["name"] == "lerobot"
    with pytest.raises(ContractError, match="does not make it"):
        checkpoint.verify(codecs.joints_absolute(), fps=10)


def test_without_a_contract_quaternions_of_the_other_sign_are_seen(run: Path) -> None:
    checkpoint = CheckpointDirectory(run).checkpoint("020000")
    (checkpoint.path / "contract.json").unlink()
    (state,) = checkpoint.path.glob("policy_preprocessor*.safetensors")
    tensors = load_file(state)
    tensors["observation.state.mean"][3:7] = [0.0, -0.9, 0.05, 0.0]
    save_file(tensors, state)
    with pytest.raises(ContractError, match=r"opposite to those of codec 'eepose_state' \(elem"):
        checkpoint.verify(state_codec(), fps=15)
    contract = checkpoint.verify(codecs.eepose_state(quat_reference=None), fps=15)
    assert contract.make_codec() == codecs.eepose_state(quat_reference=None)


@pytest.mark.parametrize(("kind", "takes"), [("act", False), ("smolvla", True), ("mine", True)])
def test_a_policy_that_is_not_known_to_need_no_words_is_told_its_task(
    run: Path, kind: str, takes: bool
) -> None:
    checkpoint = CheckpointDirectory(run).checkpoint("020000")
    file = checkpoint.path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "type": kind}))
    assert checkpoint.takes_task == takes


def test_a_policy_with_a_tokenizer_is_told_its_task(run: Path) -> None:
    checkpoint = CheckpointDirectory(run).checkpoint("020000")
    assert not checkpoint.takes_task
    file = checkpoint.path / "policy_preprocessor.json"
    document = json.loads(file.read_text())
    document["steps"].append({"registry_name": "tokenizer_processor", "config": {}})
    file.write_text(json.dumps(document))
    assert checkpoint.takes_task


def test_in_s3_only_what_serving_needs_is_fetched(s3: Any, run: Path, faulty: Faulty) -> None:
    place = "s3://bucket/runs/stacking"
    for step in ("010000", "020000"):
        local = run / "checkpoints" / step
        (local / "training_state").mkdir()
        (local / "training_state/optimizer_state.safetensors").write_bytes(bytes(1000))
        storage.publish(local, f"{place}/checkpoints/{step}")
    storage.write_bytes(f"{place}/checkpoints/last", b"020000\n")
    # A step whose publication was stopped, and one that another tool has uploaded.
    unfinished = b'{"format": 1, "whole": false, "files": {}}'
    storage.write_bytes(f"{place}/checkpoints/030000/.published.json", unfinished)
    for name in storage.listing(run / "checkpoints/020000"):
        key = f"runs/stacking/checkpoints/015000/{name}"
        s3.upload_file(str(run / "checkpoints/020000" / name), "bucket", key)
    for path in (place, Path(place), f"{place}/checkpoints/"):
        directory = CheckpointDirectory(path)
        assert directory.ids() == ["010000", "015000", "020000"]
        assert directory.name == "stacking"
    expected = CheckpointDirectory(run).checkpoint("020000").verify()
    faulty.requests.clear()
    for step in ("020000", "015000"):
        checkpoint = directory.checkpoint(directory.resolve(int(step)))
        assert checkpoint.verify() == expected
        assert checkpoint.label == f"stacking/checkpoints/{step}"
        assert faulty.count("GET", f"/{step}/pretrained_model/model.safetensors") == 1
    assert faulty.count("GET", "/010000/") == faulty.count("GET", "/training_state/") == 0


def test_what_is_not_in_s3_is_refused(s3: Any) -> None:
    with pytest.raises(CheckpointError, match="s3://bucket/runs/none is not a directory"):
        CheckpointDirectory("s3://bucket/runs/none")
    storage.write_bytes("s3://bucket/runs/empty/config.yaml", b"")
    with pytest.raises(CheckpointError, match="No checkpoints found in s3://bucket/runs/empty"):
        CheckpointDirectory("s3://bucket/runs/empty")
