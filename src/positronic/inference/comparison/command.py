"""``positronic-inference compare``: roll out policies on the same seeds and compare them."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import configuronic as cfn

import positronic.cfg.driver
import positronic.cfg.player
import positronic.cfg.policy
from foundation import storage
from foundation.console import say_made
from foundation.errors import FoundationError, StorageError, UsageError
from positronic.cfg.components import DRIVER, PLAYER
from positronic.cfg.policy import POLICY
from positronic.cli.flags import Flags, apply_flags
from positronic.cli.help import parameters
from positronic.inference.flags import CAMERAS, DEFAULT_SEED, make_setting

if TYPE_CHECKING:
    from positronic.inference.comparison.contest import Contest
    from positronic.inference.comparison.entrants import Entrant
    from positronic.inference.evaluation import Evaluation
    from positronic.policy import Policy

JSON, HTML = "comparison.json", "comparison.html"

type Side = tuple[str, Callable[[], Policy]]
"""A policy to play: its label, and a function that opens it."""


@runtime_checkable
class ServedElsewhere(Protocol):
    """A policy whose server can be asked for the checkpoint."""

    def require_checkpoint(self) -> None:
        """Raise SessionError if the server lists its checkpoints and has not this one."""


@dataclass(frozen=True)
class DeferredPolicy:
    """A policy that is opened later, possibly once per checkpoint."""

    config: cfn.Config

    @property
    def chosen(self) -> bool:
        """Whether the command line selects a policy."""
        return self.config.target is not positronic.cfg.policy.placeholder.target

    @property
    def has_checkpoints(self) -> bool:
        """Whether its config takes a checkpoint."""
        return "checkpoint" in parameters(self.config)

    def make(self, checkpoint: Any = None) -> "Policy":
        """Open the policy, at a checkpoint if one is given."""
        config = self.config
        if checkpoint is not None:
            config = config.override(checkpoint=checkpoint)
        policy: Policy = POLICY.require(config.instantiate(), "policy")
        return policy


def prepare(config: cfn.Config, flags: Flags) -> tuple[cfn.Config, Flags]:
    """Defer opening the policies, which are opened one after the other, if at all."""
    if config is not compare:
        return config, flags
    config = apply_flags(config, flags)
    deferred = {name: _defer(config.kwargs[name]) for name in ("policy", "against")}
    return config.override(**deferred), Flags(())


def _defer(config: Any) -> cfn.Config:
    """Return the same config, with the same help, whose result is a `DeferredPolicy`."""
    if not isinstance(config, cfn.Config):
        return _defer(cfn.Config(lambda: config))
    recipe = DeferredPolicy(config.copy())

    @wraps(config.target)
    def target(**given: Any) -> DeferredPolicy:
        return recipe

    later = config.copy()
    later.target = target
    return later


@cfn.config(
    policy=positronic.cfg.policy.placeholder,
    against=positronic.cfg.policy.placeholder,
    driver=positronic.cfg.driver.timed,
    player=positronic.cfg.player.synchronous,
    cameras=CAMERAS,
    image_size=(240, 320),
)
def compare(
    policy: Annotated[Any, POLICY],
    against: Annotated[Any, POLICY],
    driver: Annotated[Any, DRIVER],
    player: Annotated[Any, PLAYER],
    checkpoints: Any = None,
    runs: Any = None,
    env: str = "stack_cubes",
    output_dir: str | None = None,
    seed: int = DEFAULT_SEED,
    num_envs: int = 1,
    cameras: Any = CAMERAS,
    image_size: Any = (240, 320),
    charge_inference_time: bool = False,
    inference_delay: float | None = None,
    video: bool = False,
    report_videos: int = 4,
    fail_on_regression: bool = False,
) -> int:
    """Roll out several policies on the same seeds and compare their success rates.

    Prints, and writes to comparison.html and comparison.json, each policy's success rate and, for
    each pair of policies, on how many seeds only one of the two succeeded, McNemar's exact test of
    those, and the difference of the rates with its interval. With more than two policies the
    p-values are corrected by Holm's method. The rollouts of each policy are recorded as by
    positronic-inference sim, in its own directory below --output_dir.

    Example:
        positronic-inference compare --policy=.remote --checkpoints=[5000,10000]

    Args:
        policy: The first policy, with which the others are compared.
        against: Another policy: --against=.remote --against.port=8001.
        checkpoints: Play --policy at each of these checkpoints, such as [5000,10000].
        runs: Compare finished runs instead, given by their output directories: [DIR,DIR].
        driver: Number of rollouts of each policy, and their time limit.
        player: Player of action chunks.
        env: The environment, ``stack_cubes`` or ``pick_place``.
        output_dir: Directory to write to, local or, if new, s3://bucket/key; nothing is written if
            not given.
        seed: Seed of the first rollout.
        num_envs: Number of parallel rollouts, each in its own process, of policies on servers.
        cameras: Image signals to render and record, separated by commas; none renders nothing.
        image_size: Height and width of the images.
        charge_inference_time: Advance simulated time while a policy infers, as on a robot.
        inference_delay: Seconds of simulated time to charge per inference instead.
        video: Write a video of each rollout to videos/ beside the report of its policy.
        report_videos: Number of rollouts shown in full in the report of each policy, failures
            first.
        fail_on_regression: Exit with status 1 if another policy is significantly worse than the
            first.
    """
    from positronic.inference.comparison.entrants import Entrant, require_comparable
    from positronic.inference.evaluation import Evaluation

    directories = _listed(runs, "runs")
    sides = _sides(policy, against, _listed(checkpoints, "checkpoints"))
    if directories and sides:
        raise UsageError("give --runs to compare finished runs, or --policy to play, not both")
    if len(directories or sides) < 2:
        raise UsageError(
            "nothing to compare: give --policy with --checkpoints=[A,B] or with --against, or"
            " --runs=[DIR,DIR]"
        )
    if DRIVER.require(driver, "driver").show_gui:
        raise UsageError("compare has no camera window; leave out --driver.show_gui")
    cause: BaseException | None = None
    kept = nullcontext() if output_dir is None else storage.output_directory(output_dir)
    with kept as root:
        if root is not None and (root / JSON).exists():
            raise StorageError(f"{root} already has a comparison; choose another --output_dir")
        if directories:
            entrants = [
                Entrant.read(directory, label, _report_of(directory, output_dir))
                for directory, label in zip(directories, _labels(directories), strict=True)
            ]
        else:
            setting = make_setting(
                driver, player, env, cameras, image_size, charge_inference_time, inference_delay
            )
            evaluation = Evaluation(
                setting,
                seed,
                driver.num_iterations,
                num_envs,
                video=video,
                report_videos=report_videos,
                part_of=f"../{HTML}",
            )
            described = _check(evaluation, sides, output_dir)
            entrants, cause = _play_all(evaluation, sides, described, output_dir, root)
        if cause is not None and len(entrants) < 2:
            raise cause
        require_comparable(entrants)
        worse = _conclude(entrants, root)
    if output_dir is not None:
        say_made("comparison", storage.join(output_dir, HTML))
    if cause is not None:
        raise cause
    return 1 if worse and fail_on_regression else 0


def _report_of(directory: str, output_dir: str | None) -> str | None:
    """The path of a finished run's report, relative to the comparison, if both are local."""
    from positronic.inference.run import REPORT

    if output_dir is None or storage.is_remote(directory) or storage.is_remote(output_dir):
        return None
    report = storage.local(directory).resolve() / REPORT
    here = storage.local(output_dir).resolve()
    return Path(os.path.relpath(report, here)).as_posix() if report.is_file() else None


def _sides(
    policy: DeferredPolicy, against: DeferredPolicy, checkpoints: Sequence[Any]
) -> list[Side]:
    """The policies to play, each with a label and a function that opens it."""
    if checkpoints and not (policy.chosen and policy.has_checkpoints):
        raise UsageError("--checkpoints needs a --policy with checkpoints, such as .remote")
    for name in map(str, checkpoints):
        if "/" in name or name.startswith("."):
            raise UsageError(f"--checkpoints={name} is not a checkpoint name; give the step alone")
    sides: list[Side] = [(str(name), partial(policy.make, name)) for name in checkpoints]
    if policy.chosen and not checkpoints:
        sides.append(("first", policy.make))
    if against.chosen:
        sides.append(("other", against.make))
    return sides


def _check(
    evaluation: "Evaluation", sides: Sequence[Side], output_dir: str | None
) -> dict[str, str]:
    """Check every policy, so that none fails after hours of rollouts of those before it.

    Servers are asked for their checkpoints before any loads one. Returns a short description of
    each policy by its label.
    """
    described, served = {}, []
    for label, make in sides:
        with closing(make()) as policy:
            evaluation.check(policy, output_dir)
            if isinstance(policy, ServedElsewhere):
                policy.require_checkpoint()
                served.append((label, make))
            else:
                described[label] = _opened(policy)
    for label, make in served:
        with closing(make()) as policy:
            described[label] = _opened(policy)
    return described


def _opened(policy: "Policy") -> str:
    """Open a session and close it; return a short description of the policy."""
    from positronic.inference.comparison.entrants import describe

    with closing(policy.new_session()) as session:
        return describe(session.meta)


def _play_all(
    evaluation: "Evaluation",
    sides: Sequence[Side],
    described: Mapping[str, str],
    output_dir: str | None,
    root: Path | None,
) -> "tuple[list[Entrant], BaseException | None]":
    """Play one policy after the other; return their results, and what ended the run early."""
    from positronic.inference.comparison.entrants import Entrant
    from positronic.inference.run import REPORT

    entrants: list[Entrant] = []
    for label, make in sides:
        print(f"{label}: {described[label]}, {evaluation.num_iterations} rollouts", flush=True)
        directory = None if output_dir is None else storage.join(output_dir, label)
        try:
            policy = make()
            try:
                result, cause = evaluation.run(
                    policy, directory, None if root is None else root / label
                )
            finally:
                policy.close()
        except (KeyboardInterrupt, FoundationError, OSError) as error:
            return entrants, error
        report = None if root is None else f"{label}/{REPORT}"
        entrants.append(Entrant.of(label, result.to_json(), report))
        if cause is not None:
            return entrants, cause
    return entrants, None


def _conclude(entrants: "Sequence[Entrant]", root: Path | None) -> "list[Contest]":
    """Print and write the comparison; return the pairs that the first entrant won."""
    from positronic.inference.comparison import contest
    from positronic.inference.comparison.page import render_page
    from positronic.inference.evaluation import command_line
    from positronic.inference.run import now, write_text

    contests = contest.all_contests(entrants)
    print("\n".join(contest.summary_lines(entrants, contests)))
    if root is not None:
        origin = {"started": now(), "command": command_line()}
        root.mkdir(parents=True, exist_ok=True)
        write_text(root / JSON, contest.dumps(entrants, contests, origin))
        write_text(root / HTML, render_page(entrants, contests, origin))
    return contest.regressions(entrants, contests)


def _listed(value: Any, flag: str) -> list[Any]:
    """Parse a list from the command line: ``[a,b]``, ``a,b`` or a list from Python."""
    if value is None:
        return []
    if isinstance(value, str):
        value = [part.strip(" '\"") for part in value.strip("[]()").split(",")]
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str | int) and str(item) for item in listed):
        raise UsageError(f"--{flag}={value}: expected a list such as [A,B]")
    if len({str(item) for item in listed}) < len(listed):
        raise UsageError(f"--{flag}={value} has a duplicate")
    return listed


def _labels(directories: Sequence[Any]) -> list[str]:
    """Short names of directories: as many of their last components as make them distinct."""
    parts = [str(directory).rstrip("/").split("/") for directory in directories]
    for count in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise UsageError("--runs has a duplicate directory")
