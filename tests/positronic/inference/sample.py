"""A run written by hand, to draw a report of without a simulator."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from positronic.inference.replay import Curve, Replay
from positronic.inference.results import EpisodeResult, RunResult
from positronic.inference.video import encode_mp4, side_by_side

FPS = 15.0


def sample_run(
    count: int = 12, failures: tuple[int, ...] = (4,), unfinished: str = ""
) -> RunResult:
    rng = np.random.default_rng(0)
    episodes = []
    for i in range(count):
        failed = i in failures
        ended_by = "timeout" if failed else "success"
        error = None
        if unfinished and i == count - 1:
            ended_by, error = unfinished, "the server at localhost:8000 went away"
        steps = 300 if failed else int(rng.integers(70, 95))
        asked = tuple(range(0, steps, 10))
        episodes.append(
            EpisodeResult(
                seed=1000 + i,
                ended_by=ended_by,
                steps=steps,
                total_reward=0.0 if failed else 1.0,
                initial_state=f"{i:016x}",
                final_state=f"{i + 77:016x}",
                inference_steps=asked,
                inference_ms=tuple(float(ms) for ms in rng.gamma(4.0, 1.0, len(asked))),
                wall_s=0.8,
                path=Path(f"/tmp/rollouts/000000000000/{i:012d}"),
                error=error,
            )
        )
    return RunResult(
        env="positronic/StackCubes-v0",
        task="Pick up the red cube and place it on the green cube.",
        seed=1000,
        num_iterations=count if not unfinished else 50,
        simulation_time=20.0,
        control_fps=FPS,
        cameras=("image.wrist", "image.exterior"),
        image_size=(240, 320),
        policy={
            "type": "act",
            "checkpoint_id": "003000",
            "host": "127.0.0.1",
            "action_fps": 15.0,
            "contract": {"codec": {"name": "eepose_state"}, "fps": 15, "chunk_size": 20},
        },
        started="2026-11-20T04:30:12+00:00",
        command=("positronic-inference", "sim", "--policy=.remote", "--driver.num_iterations=50"),
        versions={"positronic-lightning": "0.1.0", "mujoco": "3.8.1", "python": "3.12.4"},
        episodes=episodes,
        wall_s=71.3,
        error="the server at localhost:8000 went away" if unfinished else None,
    )


def sample_frames(steps: int, height: int = 240, width: int = 320) -> list[NDArray[np.uint8]]:
    """A square that travels from left to right in two cameras."""
    frames = []
    for i in range(steps):
        image = np.full((height, width, 3), 40, np.uint8)
        left = int((width - 30) * i / max(1, steps - 1))
        image[height // 3 : height // 3 + 30, left : left + 30] = (220, 60, 60)
        frames.append(side_by_side([image, image[:, ::-1]]))
    return frames


def sample_replay(steps: int, *, video: bool = True) -> Replay:
    t = np.arange(steps + 1) / FPS
    s = t / t[-1]
    pose = np.zeros((steps + 1, 7))
    pose[:, 0] = 0.45 + 0.1 * np.sin(3 * s)
    pose[:, 1] = 0.2 * s - 0.1
    pose[:, 2] = 0.35 - 0.15 * np.sin(np.pi * s) ** 2
    pose[:, 3] = 1.0
    command = pose[1:] + np.array([0.004, -0.003, 0.006, 0, 0, 0, 0])
    objects = np.zeros((steps + 1, 14))
    objects[:, 0], objects[:, 7] = 0.5, 0.42
    objects[:, 1], objects[:, 8] = 0.1 * s, 0.1
    objects[:, 2], objects[:, 9] = 0.32 + 0.04 * (s > 0.6), 0.32
    target = (np.abs(s - 0.55) > 0.25).astype(float)
    grip = np.clip(np.convolve(np.pad(target, (5, 0), mode="edge"), np.ones(6) / 6, "valid"), 0, 1)
    film, size = encode_mp4(sample_frames(steps + 1), FPS) if video else (None, (0, 0))
    return Replay(
        curves={
            "robot_state.ee_pose": Curve(t, pose),
            "robot_commands.pose": Curve(t[:-1], command),
            "grip": Curve(t, grip),
            "target_grip": Curve(t[:-1], target[:-1]),
            "object_poses": Curve(t, objects),
        },
        object_names=("red_cube", "green_cube"),
        cameras=("image.wrist", "image.exterior") if video else (),
        video=film,
        video_size=size,
    )
