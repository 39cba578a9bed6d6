"""``positronic-inference``: entry point of its commands, and ``sim``, which rolls out a policy."""

from contextlib import nullcontext
from typing import Any, NoReturn

import configuronic as cfn

import positronic.cfg.driver
import positronic.cfg.player
import positronic.cfg.policy
from foundation import storage
from foundation.errors import UsageError
from positronic.cli import run as run_command_line
from positronic.inference.comparison.command import compare, prepare
from positronic.inference.flags import CAMERAS, DEFAULT_SEED, make_setting
from positronic.inference.open_loop.command import open_loop


@cfn.config(
    policy=positronic.cfg.policy.placeholder,
    driver=positronic.cfg.driver.timed,
    player=positronic.cfg.player.synchronous,
    cameras=CAMERAS,
    image_size=(240, 320),
)
def sim(
    policy: Any,
    driver: Any,
    player: Any,
    env: str = "stack_cubes",
    output_dir: str | None = None,
    seed: int = DEFAULT_SEED,
    num_envs: int = 1,
    cameras: Any = CAMERAS,
    image_size: Any = (240, 320),
    charge_inference_time: bool = False,
    inference_delay: Any = None,
    video: bool | str = False,
    report_videos: int = 8,
) -> int:
    """Roll out a policy in simulation: record, count, report.

    Rollout i starts from the state that seed + i gives. With an output directory each rollout is
    added there as an episode of a raw dataset, and results.json and report.html tell of this run;
    those of an earlier run are kept beside them under its time. Ends with 0 when all rollouts were
    played, however they went.

    Args:
        policy: What acts; ``.remote`` is a policy on a server.
        driver: How many rollouts, how long, and who watches.
        player: How chunks of actions are played; ``.asynchronous`` asks for the next one early.
        env: The environment, ``stack_cubes`` or ``pick_place``.
        output_dir: Where to record, local or s3://bucket/key; nothing is kept if not given.
        seed: Seed of the first rollout.
        num_envs: So many rollouts at once, each in a process of its own, of a policy on a server.
            The results stay the same, to the bit where the server has --max_batch=1.
        cameras: Image signals to render and record, separated by commas; none renders nothing.
        image_size: Height and width of the images.
        charge_inference_time: Let simulated time go on while the policy infers, as on a robot.
        inference_delay: Seconds of simulated time to charge for each inference instead; a list such
            as [0,0.1,0.2,0.4] plays all rollouts at each, and the report shows the curve.
        video: True for a film of each rollout in videos/ beside the report, or a directory for
            them, local or s3://bucket/key.
        report_videos: How many rollouts the report shows in full, failures first.
    """
    from positronic.inference.evaluation import Evaluation
    from positronic.inference.run import REPORT, summary_lines

    if seed < 0:
        raise UsageError(f"--seed is {seed}; expected 0 or more")
    setting = make_setting(
        driver, player, env, cameras, image_size, charge_inference_time, inference_delay
    )
    evaluation = Evaluation(
        setting, seed, driver.num_iterations, num_envs, driver.show_gui, video, report_videos
    )
    kept = (
        nullcontext() if output_dir is None else storage.output_directory(output_dir, append=True)
    )
    try:
        evaluation.check(policy, output_dir)
        with kept as root:
            result, cause = evaluation.run(policy, output_dir, root)
            print("\n".join(summary_lines(result)))
    finally:
        policy.close()
    if output_dir is None:
        print("nothing was recorded; give --output_dir=DIR to keep episodes and a report")
    else:
        print(f"report {storage.join(output_dir, REPORT)}")
    if cause is not None:
        raise cause
    return 0


COMMANDS = {"sim": sim, "compare": compare, "open_loop": open_loop}


def main() -> NoReturn:
    """Run the command line."""
    run_command_line(COMMANDS, "positronic-inference", prepare=prepare)
