import re
from pathlib import Path

import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from getiaction.errors import GetiactionError
from getiaction.train.callbacks import GymEvaluation
from tests.getiaction.train.small import data, drift, policy, trainer


def test_a_line_for_each_evaluation(
    state_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gyms = {"easy": drift(success_below=99.0), "hard": drift(success_below=-99.0)}
    module = policy()
    run = trainer(tmp_path, callbacks=GymEvaluation(), val_check_interval=3)
    source = data(state_root, val_gyms=gyms, num_rollouts_val=10, test_gyms=gyms["easy"])
    run.fit(module, source)
    lines = [line for line in capsys.readouterr().err.splitlines() if " at step " in line]
    easy = "10/10 succeeded (72.2-100.0 %), mean reward "
    assert lines[0].startswith(f"validation at step 3 in easy: {easy}")
    assert lines[1].startswith("validation at step 3 in hard: 0/10 succeeded (0.0-27.8 %), mean")
    assert re.search(r" mean reward -?\d\.\d{3}, mean length 1\.0, \d+ s$", lines[0])
    assert [line[:24] for line in lines[2:]] == ["validation at step 6 in "] * 2
    run.test(module, source, verbose=False)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if " at step " in line)
    assert line.startswith(f"test at step 6: {easy}")
    silent = trainer(tmp_path, callbacks=GymEvaluation(verbose=False))
    silent.validate(module, source, verbose=False)
    assert " at step " not in capsys.readouterr().err


def test_settings_reach_the_rollouts(state_root: Path, tmp_path: Path) -> None:
    module = policy()
    gyms = {name: drift(success_below=-99.0) for name in ("a", "b")}
    source = data(state_root, val_gyms=gyms, num_rollouts_val=3, max_episode_steps=3)
    settings = GymEvaluation(max_steps=2, num_videos=2, batched=True)
    trainer(tmp_path, callbacks=settings).validate(module, source, verbose=False)
    episodes = [episode for several in module.episodes.values() for episode in several]
    assert [episode.episode_length for episode in episodes] == [2] * 6
    videos = tmp_path / "videos" / "val_step_000000"
    assert [episode.video for episode in episodes] == [
        videos / "a" / "seed_1000_failure.mp4",
        videos / "a" / "seed_1001_failure.mp4",
        None,
        videos / "b" / "seed_1000_failure.mp4",
        videos / "b" / "seed_1001_failure.mp4",
        None,
    ]
    assert all(episode.video.is_file() for episode in episodes if episode.video)
    assert module.rollout_settings.batched
    # Without it, the data module's bound holds, and nothing is filmed.
    other = policy()
    trainer(tmp_path).validate(other, source, verbose=False)
    episodes = [episode for several in other.episodes.values() for episode in several]
    assert [(episode.episode_length, episode.video) for episode in episodes] == [(3, None)] * 6


def test_only_a_policy_can_be_rolled_out(tmp_path: Path) -> None:
    with pytest.raises(GetiactionError, match="^BoringModel cannot be rolled out"):
        trainer(tmp_path, callbacks=GymEvaluation()).fit(BoringModel())
