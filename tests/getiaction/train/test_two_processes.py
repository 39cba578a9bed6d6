import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lerobot.datasets import EpisodeAwareSampler, LeRobotDatasetMetadata

from getiaction.eval import run_episodes
from tests.getiaction.train.runs import BATCH, SEED
from tests.getiaction.train.small import data, drift, policy
from tests.getiaction.train.two_processes import EPOCHS, ROLLOUTS


@pytest.mark.e2e
def test_two_processes_train_one_policy(state_root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.getiaction.train.two_processes", state_root, tmp_path],
        check=True,
        timeout=500,
        # Lightning's children run the command again, as this one is.
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))

    assert first["losses"] != second["losses"]
    for name, weight in first["weights"].items():
        assert torch.equal(second["weights"][name], weight), name
    # Each process has trained on other batches, and knows what all of them validated.
    validated = [
        {name: value for name, value in part["metrics"].items() if name.startswith("val/")}
        for part in (first, second)
    ]
    assert validated[0] == validated[1]
    assert validated[0]["val/loss"] > 0

    # Accelerate deals native training's batches out by turns, and begins anew to come out even.
    source = data(state_root, val_split=0.3)
    module = policy()
    source.prepare(module.config)
    meta = LeRobotDatasetMetadata("local/small", root=state_root)
    sampler = EpisodeAwareSampler(
        meta.episodes["dataset_from_index"],
        meta.episodes["dataset_to_index"],
        episode_indices_to_use=source.train_dataset.dataset.episodes,
        shuffle=True,
        seed=SEED,
    )
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        order = list(sampler)
        batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
        steps = len(first["indices"]) // EPOCHS
        mine = slice(epoch * steps, (epoch + 1) * steps)
        dealt = [
            b
            for pair in zip(first["indices"][mine], second["indices"][mine], strict=True)
            for b in pair
        ]
        whole = [batch for batch in batches if len(batch) == BATCH]
        assert dealt[: len(whole)] == whole
        assert {index for batch in dealt for index in batch} == set(order)
        assert all(len(batch) == BATCH for batch in dealt)

    # One process with the same weights rolls the same episodes out.
    module.create(source.meta)
    module.lerobot_policy.load_state_dict(first["weights"])
    assert first["episodes"] == second["episodes"]
    for name, gym in {"short": drift(success_below=99.0), "long": drift()}.items():
        alone = run_episodes(gym, module, range(1000, 1000 + ROLLOUTS))
        assert first["episodes"][name] == [
            (e.seed, e.sum_reward, e.success, e.episode_length) for e in alone
        ]
        success = sum(e.success is True for e in alone) / ROLLOUTS
        for metrics in (first["metrics"], second["metrics"]):
            assert metrics[f"val/gym/{name}/success"] == pytest.approx(success)
            assert metrics[f"val/gym/{name}/n_episodes"] == ROLLOUTS
    assert first["lonely"]["val/gym/n_episodes"] == second["lonely"]["val/gym/n_episodes"] == 1
