"""The words of a task: where a policy reads them, and where none does.

LeRobot's own policies that read words need packages that are not installed here. So a step of a
real processor pipeline reads them instead, and turns them into numbers of the robot's state.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.processor import PolicyProcessorPipeline, ProcessorStep, ProcessorStepRegistry
from lerobot.processor.converters import batch_to_transition, transition_to_batch

from positronic.errors import CodecError
from positronic.vendors.lerobot import codecs
from positronic.vendors.lerobot.serving.policy import BATCH_TOLERANCE
from tests.positronic.vendors.lerobot.serving.strategies.episodes import (
    STEP,
    Episode,
    load,
    native_actions,
    seen,
    step_together,
)
from tests.positronic.vendors.lerobot.small_policy import make_run

CODEC = codecs.eepose_state()


@ProcessorStepRegistry.register("tests_count_letters")
@dataclass
class CountLetters(ProcessorStep):
    """Adds the number of letters of each row's task to its robot state."""

    def __call__(self, transition: Any) -> Any:
        tasks = transition["complementary_data"]["task"]
        letters = torch.tensor([[float(len(task))] for task in tasks])
        observation = dict(transition["observation"])
        observation["observation.state"] = observation["observation.state"] + letters / 10
        return {**transition, "observation": observation}

    def transform_features(self, features: Any) -> Any:
        return features


@pytest.fixture(scope="module")
def reads_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("words"), CODEC, (1,))
    pre: Any = PolicyProcessorPipeline.from_pretrained(
        run / STEP,
        config_filename="policy_preprocessor.json",
        to_transition=batch_to_transition,
        to_output=transition_to_batch,
    )
    pre.steps = [*pre.steps[:2], CountLetters(), *pre.steps[2:]]
    pre.save_pretrained(run / STEP, config_filename="policy_preprocessor.json")
    return run


def told(task: str, steps: int = 8) -> list[dict[str, Any]]:
    return [{**obs, "task": task} for obs in seen(1, steps)]


def test_it_reaches_a_policy_that_reads_it_as_natively(reads_words: Path) -> None:
    policy = load(reads_words, trust_checkpoint=True)
    assert policy.meta["every_step"]
    played = {task: Episode(policy, 0) for task in ("stack", "put the cube into the box")}
    for task, episode in played.items():
        for obs in told(task):
            episode.step(obs)
        np.testing.assert_array_equal(
            episode.actions, native_actions(reads_words, CODEC, told(task), 0)
        )
    one, other = (np.array(episode.actions) for episode in played.values())
    assert not np.allclose(one, other, atol=1e-3)


def test_each_session_has_its_own_in_a_batch(reads_words: Path) -> None:
    policy = load(reads_words, trust_checkpoint=True)
    tasks = ("stack", "put the cube into the box")
    together = [Episode(policy, 0) for _ in tasks]
    for step in range(8):
        assert step_together(together, [told(task)[step] for task in tasks]) in (0, 2)
    for task, episode in zip(tasks, together, strict=True):
        alone = Episode(policy, 0)
        for obs in told(task):
            alone.step(obs)
        np.testing.assert_allclose(episode.actions, alone.actions, atol=BATCH_TOLERANCE)


@pytest.mark.parametrize(
    ("task", "got"), [({}, "nothing"), ({"task": 5}, "int"), ({"task": None}, "nothing")]
)
def test_a_policy_that_reads_words_is_told_some(
    reads_words: Path, task: dict[str, Any], got: str
) -> None:
    obs = {key: value for key, value in seen(1, 1)[0].items() if key != "task"}
    session = load(reads_words, trust_checkpoint=True).new_session()
    with pytest.raises(CodecError, match=f"'task' is {got}, expected words"):
        session.prepare({**obs, **task})
    assert load(reads_words, trust_checkpoint=True).new_session({"task": "stack"}).infer(obs)


def test_it_never_reaches_act(tmp_path: Path) -> None:
    policy = load(make_run(tmp_path / "run", CODEC, (1,)))
    backend: Any = policy._backend
    keys: list[set[str]] = []
    backend.policy.model.register_forward_pre_hook(lambda _, args: keys.append(set(args[0])))
    before = backend.pre.steps[0]
    backend.pre.steps[0] = Listening(before)
    one = policy.new_session({"task": "stack"}).infer(seen(1, 1)[0])
    other = policy.new_session().infer({**seen(1, 1)[0], "task": 5})
    np.testing.assert_equal(one, other)
    assert len(keys) == 2
    assert not any("task" in each for each in keys)
    assert backend.pre.steps[0].tasks == [None, None]


@dataclass
class Listening(ProcessorStep):
    """Hears what the pipeline is told, and hands it on."""

    step: Any

    def __post_init__(self) -> None:
        self.tasks: list[Any] = []

    def __call__(self, transition: Any) -> Any:
        self.tasks.append(transition["complementary_data"].get("task"))
        return self.step(transition)

    def transform_features(self, features: Any) -> Any:
        return features
