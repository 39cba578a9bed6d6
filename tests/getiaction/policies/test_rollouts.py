import random
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch import Trainer as LightningsTrainer

from getiaction.errors import GetiactionError
from getiaction.eval import run_episodes, wilson_interval
from getiaction.gyms import GymnasiumGym
from getiaction.policies.rollouts import METRICS, Evaluated, gathered
from getiaction.train.callbacks import EarlyStopping, GymEvaluation, ModelCheckpoint
from tests.getiaction.train.small import Metrics, data, drift, policy, trainer


def test_both_families_of_metrics(state_root: Path, tmp_path: Path) -> None:
    metrics = Metrics()
    module = policy()
    run = trainer(tmp_path, callbacks=[metrics], val_check_interval=0.5)
    run.fit(module, data(state_root, val_gyms=drift(), num_rollouts_val=5, num_envs=2))
    # 34 frames in batches of 6: validation after half of the six steps, and after all of them.
    assert list(metrics.at_step) == [3, 6]
    logged = metrics.at_step[6]
    episodes = run_episodes(drift(), module, range(1000, 1005))
    assert module.episodes == {"": episodes}
    assert {name for name in logged if name.startswith("val/")} == {
        f"val/gym/{name}" for name in METRICS
    }
    mean = {
        name: np.mean([getattr(episode, name) for episode in episodes])
        for name in ("success", "sum_reward", "max_reward", "episode_length")
    }
    low, high = wilson_interval(sum(e.success is True for e in episodes), 5)
    expected = {
        **mean,
        "reward_mean": mean["sum_reward"],
        "avg_sum_reward": mean["sum_reward"],
        "avg_max_reward": mean["max_reward"],
        "avg_episode_length": mean["episode_length"],
        "pc_success": 100 * mean["success"],
        "n_episodes": 5,
        "success_low": low,
        "success_high": high,
    }
    assert {name: logged[f"val/gym/{name}"] for name in METRICS} == pytest.approx(expected)
    assert 0 < mean["success"] < 1


def test_several_gyms_and_held_out_episodes(state_root: Path, tmp_path: Path) -> None:
    metrics = Metrics()
    gyms = {"easy": drift(success_below=99.0), "hard": drift(success_below=-99.0)}
    module = policy()
    run = trainer(tmp_path, callbacks=[metrics])
    run.fit(module, data(state_root, val_gyms=gyms, val_split=0.3, num_rollouts_val=3))
    (logged,) = metrics.at_step.values()
    assert logged["val/gym/easy/success"] == 1
    assert logged["val/gym/hard/success"] == 0
    assert logged["val/gym/success"] == 0.5
    assert logged["val/gym/n_episodes"] == 6
    assert logged["val/gym/easy/episode_length"] == 1
    assert logged["val/gym/hard/episode_length"] == 4
    assert [len(episodes) for episodes in module.episodes.values()] == [3, 3]
    assert not any("dataloader_idx" in name for name in logged)
    # As in LeRobot's loop: in evaluation mode, the mean of the batches, the smaller last one too.
    module.lerobot_policy.eval()
    held_out = data(state_root, val_split=0.3)
    held_out.prepare(module.config)
    with torch.no_grad():
        losses = [module.held_out_loss(batch).item() for batch in held_out.val_dataloader()[0]]
    assert len(losses) > 1
    assert logged["val/loss"] == pytest.approx(np.mean(losses))


OF_SUCCESS = ("success", "pc_success", "success_low", "success_high")


def test_success_that_no_gym_tells_is_not_logged(
    state_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics()
    gyms = {"telling": drift(success_below=99.0), "silent": drift(tells=False)}
    run = trainer(tmp_path, callbacks=[metrics, GymEvaluation()])
    run.fit(policy(), data(state_root, val_gyms=gyms))
    (logged,) = metrics.at_step.values()
    for name in OF_SUCCESS:
        assert f"val/gym/silent/{name}" not in logged
    assert logged["val/gym/silent/n_episodes"] == 3
    # Of both together only what was measured counts.
    assert logged["val/gym/success"] == logged["val/gym/telling/success"] == 1
    assert logged["val/gym/success_low"] == logged["val/gym/telling/success_low"]
    assert logged["val/gym/n_episodes"] == 6
    said = capsys.readouterr().err
    assert "in silent: success not measured, mean reward" in said
    assert "in telling: 3/3 succeeded" in said


@pytest.mark.parametrize("watch", [ModelCheckpoint, EarlyStopping])
def test_what_watches_success_that_no_gym_tells_is_one_clear_line(
    watch: Any, state_root: Path, tmp_path: Path
) -> None:
    run = trainer(
        tmp_path,
        callbacks=[watch(monitor="val/gym/success", mode="max")],
        enable_checkpointing=True,
    )
    with pytest.raises(GetiactionError) as caught:
        run.fit(policy(), data(state_root, val_gyms=drift(tells=False)))
    assert str(caught.value) == (
        f"{watch.__name__} watches 'val/gym/success', but the environment tells no success: its "
        "info has none of is_success, success, task_success, is_task_success; let it tell one at "
        "each step, or watch 'val/gym/reward_mean'"
    )


class Draws(Callback):
    """Record the state of each random stream, and of each module, around validations."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        modes = [module.training for module in pl_module.modules()]
        numpy: Any = np.random.get_state()
        drawn = torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2], random.getstate()
        self.states.append((drawn, modes))


def test_rollouts_leave_training_as_it_is(state_root: Path, tmp_path: Path) -> None:
    """To the last bit: losses, weights, random streams and modes, and an episode under way."""
    results = []
    for gyms in (None, drift()):
        random.seed(1)
        draws, metrics, module = Draws(), Metrics(), policy(n_action_steps=3)
        run = trainer(
            tmp_path, callbacks=[draws, metrics], max_epochs=2, val_check_interval=2, precision=None
        )
        run.fit(module, data(state_root, val_gyms=gyms))
        assert bool(metrics.at_step) == (gyms is not None)
        results.append((metrics.losses, module.lerobot_policy.state_dict(), draws.states))
    (losses, weights, states), (others, other_weights, other_states) = results
    assert losses == others
    assert len(losses) == 12
    assert states == other_states
    for name, weight in weights.items():
        assert torch.equal(weight, other_weights[name]), name


def test_an_episode_under_way_goes_on(state_root: Path, tmp_path: Path) -> None:
    module = policy()
    source = data(state_root, val_gyms=drift())
    module.create(source.meta)
    seen = {
        "observation.state": torch.ones(1, 8),
        "observation.environment_state": torch.ones(1, 10),
        "task": ["none"],
    }
    first = module.select_action(seen)
    # The rest of the chunk is queued: what is seen does not matter.
    chunk = module.predict_action_chunk(seen)
    trainer(tmp_path).validate(module, source)
    assert torch.equal(first, chunk[:, 0])
    assert torch.equal(module.select_action(seen), chunk[:, 1])


def test_validate_and_test_log_by_their_own_names(state_root: Path, tmp_path: Path) -> None:
    module = policy()
    source = data(
        state_root, val_gyms=drift(), test_gyms=drift(), num_rollouts_test=2, test_start_seed=7
    )
    run = trainer(tmp_path)
    (validated,) = run.validate(module, source)
    assert validated["val/gym/n_episodes"] == 3
    (tested,) = run.test(module, source)
    assert tested["test/gym/n_episodes"] == 2
    assert [episode.seed for episode in module.episodes[""]] == [7, 8]
    assert not any(name.startswith("val/") for name in tested)


def test_lightnings_own_trainer(state_root: Path, tmp_path: Path) -> None:
    """With its checks before training, its inference mode and its samplers, as people have it."""
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
        "default_root_dir": tmp_path,
    }
    module = policy()
    plain = LightningsTrainer(num_sanity_val_steps=2, **options)
    with warnings.catch_warnings():
        # Our own Trainer keeps Lightning's advice to itself.
        warnings.simplefilter("ignore")
        plain.fit(module, data(state_root, val_gyms=drift(), val_split=0.3))
    assert {"val/loss", "val/gym/success"} <= plain.callback_metrics.keys()
    ours = policy()
    trainer(tmp_path).fit(ours, data(state_root, val_gyms=drift(), val_split=0.3))
    for name, weight in ours.lerobot_policy.state_dict().items():
        assert torch.equal(module.lerobot_policy.state_dict()[name], weight), name


def test_predict(state_root: Path, tmp_path: Path) -> None:
    module = policy()
    source = data(state_root)
    chunks = trainer(tmp_path).predict(module, source)
    assert [tuple(chunk.shape) for chunk in chunks] == [(6, 5, 8)] * 5 + [(4, 5, 8)]
    batch = next(iter(source.predict_dataloader()))
    assert torch.equal(module.predict_action_chunk(batch), chunks[0])


def test_episodes_of_all_processes_count_once() -> None:
    class Run:
        def __init__(self, seed: int) -> None:
            self.seed = seed

    first, again = Run(1), Run(1)
    merged = gathered({"a": [Run(3), first, again], "b": [Run(2)]})
    assert {name: [run.seed for run in runs] for name, runs in merged.items()} == {
        "a": [1, 3],
        "b": [2],
    }


def test_a_policy_without_a_loss_says_so() -> None:
    with pytest.raises(GetiactionError, match="no loss for held-out episodes"):
        Evaluated().held_out_loss({})


class Watched(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Counts how many environments are open, and how many ever were."""

    opened = alive = 0

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        Watched.opened += 1
        Watched.alive += 1

    def close(self) -> None:
        Watched.alive -= 1
        super().close()


class WatchedGym(GymnasiumGym):
    def make(self, *, render: bool = False) -> Any:
        return Watched(super().make(render=render))


@pytest.mark.parametrize("broken", [False, True])
def test_environments_are_made_once_an_evaluation_and_closed(
    state_root: Path, tmp_path: Path, broken: bool
) -> None:
    Watched.opened = Watched.alive = 0
    plain = drift()
    # A key that the environment lacks shows at the first observation.
    keys = {**(plain.observation_keys or {}), **({"nothing": "observation.x"} if broken else {})}
    gym = WatchedGym("tests/Drift-v0", observation_keys=keys)
    module = policy()
    run = trainer(tmp_path, max_epochs=1)
    module.create(data(state_root).meta)
    given = data(state_root, val_gyms=gym, num_rollouts_val=5, num_envs=2)
    if broken:
        with pytest.raises(GetiactionError, match="nothing"):
            run.validate(module, given, verbose=False)
    else:
        run.validate(module, given, verbose=False)
        assert [episode.seed for episode in module.episodes[""]] == [*range(1000, 1005)]
    assert (Watched.opened, Watched.alive) == (2, 0)
