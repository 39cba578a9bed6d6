"""Raw episodes for the benchmarks of conversion, recorded in the simulator."""

import os
import shutil
from pathlib import Path

FPS = 15
FRAMES = 150
SIZE = (224, 224)
CAMERAS = {"observation.images.left": "image.wrist", "observation.images.side": "image.exterior"}
SPEED_M_S = 0.07  # so slow that the expert is busy for all of an episode


def record(root: Path, episodes: int) -> None:
    """Record the scripted expert stacking cubes, two cameras rendered by MuJoCo."""
    from positronic import simulator
    from positronic.dataset import DatasetWriter
    from positronic.simulator.env import PandaEnv
    from positronic.simulator.expert import make_expert

    env = simulator.make("stack_cubes", max_episode_steps=FRAMES, image_size=SIZE)
    inner = env.unwrapped
    assert isinstance(inner, PandaEnv)
    expert = make_expert(env, SPEED_M_S)
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        with DatasetWriter(root).new_episode() as episode:
            for name, value in inner.statics.items():
                episode.set_static(name, value)
            for step in range(FRAMES):
                now = step * 10**9 // FPS
                action = expert.act(observation)
                commands = {"robot_commands.pose": action[:7], "target_grip": float(action[7])}
                for name, value in {**observation, **commands}.items():
                    episode.append(name, value, now)
                observation, *_ = env.step(action)
    env.close()


def repeat(raw: Path, root: Path, episodes: int) -> None:
    """Make ``episodes`` episodes of those in ``raw``, over and over, as links to their files."""
    found = sorted(path.parent for path in raw.glob("*/*/meta.json"))
    for number in range(episodes):
        target = root / f"{0:012d}" / f"{number:012d}"
        shutil.copytree(found[number % len(found)], target, copy_function=os.link)
