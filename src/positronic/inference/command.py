"""``positronic-inference``: its entry point, and the command ``sim``, which rolls out a policy."""

from contextlib import nullcontext
from typing import Annotated, Any, NoReturn

import configuronic as cfn

import positronic.cfg.driver
import positronic.cfg.player
import positronic.cfg.policy
from foundation import storage
from foundation.console import say_made, say_next
from foundation.errors import UsageError
from positronic.cfg.components import DRIVER, PLAYER
from positronic.cfg.policy import POLICY
from positronic.cli import run as run_command_line
from positronic.cli.kinds import unused
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
    policy: Annotated[Any, POLICY],
    driver: Annotated[Any, DRIVER],
    player: Annotated[Any, PLAYER],
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
    """Roll out a policy in simulation, record the rollouts and report the success rate.

    Rollout i starts from the state drawn with seed + i. With an output directory, each rollout is
    added to it as an episode of a raw dataset, and results.json and report.html describe this run;
    those of an earlier run are renamed with its time. The exit status is 0 when all rollouts were
    played, whatever their outcome.

    Example:
        positronic-inference sim --policy=ws://localhost:8000 --driver.num_iterations=50

    Args:
        policy: The policy; ``.remote`` is a policy on a server.
        driver: Number of rollouts, their time limit, and the camera window.
        player: Player of action chunks; ``.asynchronous`` infers the next one in advance.
        env: The environment, ``stack_cubes`` or ``pick_place``; or an id of another package's, such
            as gym_pusht/PushT-v0, for a policy that was trained on a LeRobot dataset of it. It has
            its own cameras.
        output_dir: Directory to record to, local or s3://bucket/key; nothing is recorded if not
            given.
        seed: Seed of the first rollout.
        num_envs: Number of parallel rollouts, each in its own process, of a policy on a server.
            The results are the same, bit for bit if the server has --max_batch=1.
        cameras: Image signals to render and record, separated by commas; none renders nothing.
        image_size: Height and width of the images.
        charge_inference_time: Advance simulated time while the policy infers, as on a robot.
        inference_delay: Seconds of simulated time to charge per inference instead; a list such as
            [0,0.1,0.2,0.4] plays all rollouts at each, and the report shows the curve.
        video: True for a video of each rollout in videos/ beside the report, or a directory for
            the videos, local or s3://bucket/key.
        report_videos: Number of rollouts shown in full in the report: failures first, and of two or
            more one success.
    """
    from positronic.inference.evaluation import Evaluation
    from positronic.inference.run import REPORT, summary_lines

    POLICY.require(policy, "policy")
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
        if output_dir is not None:
            say_made("report", storage.join(output_dir, REPORT))
        if cause is not None:
            raise cause
        _say_compare(policy, env, storage.join(output_dir or "rollouts"))
    finally:
        policy.close()
    return 0


def _say_compare(policy: Any, env: str, output_dir: str) -> None:
    """Print the command that compares the last two checkpoints of the policy's server."""
    from foundation.errors import FoundationError
    from positronic.offboard.client import RemotePolicy

    if not isinstance(policy, RemotePolicy):
        return
    try:
        checkpoints = policy.client.models()[-2:]
    except FoundationError:  # of another kind, or gone: the rollouts are done all the same
        return
    if len(checkpoints) == 2:
        say_next(
            *("positronic-inference", "compare", f"--env={env}"),
            *("--policy=.remote", f"--policy.url={policy.client.url}"),
            *(f"--checkpoints=[{','.join(checkpoints)}]", "--driver.num_iterations=30"),
            f"--output_dir={unused(f'{output_dir}-compared')}",
        )


COMMANDS = {"sim": sim, "compare": compare, "open_loop": open_loop}


def main() -> NoReturn:
    """Run the command line."""
    run_command_line(COMMANDS, "positronic-inference", prepare=prepare)
