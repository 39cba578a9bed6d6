"""Demo of the whole workflow with the real command lines: record, convert, train, serve, roll out.

Each stage is one of the project's commands and leaves its output under ``demo/<task>-<obs>/``. A
stage that is done is not done again: a second run ends at once, an interrupted one goes on.
"""

import argparse
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foundation.console import coloured, say_made, say_next

BIN = Path(sys.executable).parent
PATH = os.environ["PATH"]


@dataclass(frozen=True)
class Recipe:
    """What a task and a kind of observation need: sizes that were measured to be enough."""

    episodes: int
    steps: int
    batch_size: int
    policy: str
    codec: tuple[str, ...]
    record: tuple[str, ...]


STATE = ("@positronic.vendors.lerobot.codecs.eepose_state",)
IMAGES = ("@positronic.vendors.lerobot.codecs.eepose_absolute", "image_size=[64,64]")
NO_CAMERAS = ("--cameras=none",)
# In half of the demonstrations something goes wrong on purpose, and the expert puts it right.
MISHAPS = ("--mishaps=0.5",)
# Square, as the policy's 64x64 pictures are: other shapes would be padded with black bars.
SQUARE = "--image_size=[240,240]"
RECIPES = {
    ("stack_cubes", "state"): Recipe(400, 6000, 128, ".act_state", STATE, (*NO_CAMERAS, *MISHAPS)),
    ("pick_place", "state"): Recipe(300, 2000, 128, ".act_state", STATE, NO_CAMERAS),
    ("stack_cubes", "images"): Recipe(400, 6000, 16, ".act_64px", IMAGES, (SQUARE,)),
    ("pick_place", "images"): Recipe(300, 3000, 16, ".act_64px", IMAGES, (SQUARE,)),
}


class Failed(Exception):
    """A stage failed; the message says which."""


class Stages:
    """Runs commands in order, remembers in ``stages.json`` which are done and by what command."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "stages.json"
        self._done: dict[str, str] = {}
        if self._file.exists():
            self._done = json.loads(self._file.read_text())

    def done(self, name: str, command: list[str]) -> bool:
        """Whether this stage is done; refuses a folder made by another command."""
        before = self._done.get(name)
        if before is not None and before != shlex.join(command):
            raise Failed(
                f"{self._file.parent} holds a demo with other settings ({before}); "
                "FRESH=1 removes it and begins again"
            )
        return before is not None

    def run(self, name: str, title: str, command: list[str], output: Path, extra: str = "") -> None:
        """Run a stage unless it is done; what an interrupted one left is removed first.

        ``extra`` is added to the command but does not make it another one (a free port).
        """
        print("\n" + coloured(title, "bold"))
        if self.done(name, command):
            print(f"  already done: {output}")
            return
        if output.exists():
            shutil.rmtree(output)
        began = time.monotonic()
        words = [*command, *([extra] if extra else [])]
        show(words)
        if subprocess.run(executable(words), check=False).returncode != 0:
            raise Failed(f"this command failed: {shlex.join(words)}")
        self._done[name] = shlex.join(command)
        self._file.write_text(json.dumps(self._done, indent=2) + "\n")
        print("  " + coloured(f"done in {time.monotonic() - began:.0f} s", "green"))


def show(command: list[str]) -> None:
    """Print a command as a person would type it, one flag a line when it is long."""
    words = [shlex.quote(word) if " " in word else word for word in command]
    head = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    print("  $ " + " \\\n      ".join([" ".join(words[:head]), *words[head:]]), flush=True)


def executable(command: list[str]) -> list[str]:
    """The same command with this environment's program, so that nothing need be activated."""
    return [str(BIN / command[0]), *command[1:]]


@contextmanager
def serving(command: list[str], log: Path) -> Iterator[None]:
    """Keep an inference server running meanwhile; its output goes to ``log``."""
    print("\n" + coloured("serve the policy", "bold"))
    show([*command, "&"])
    with log.open("w") as out:
        server = subprocess.Popen(executable(command), stdout=out, stderr=subprocess.STDOUT)
        try:
            yield
            if server.poll() is not None:
                raise Failed(f"the server ended early; see {log}")
        except Failed:
            print(log.read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            server.terminate()
            server.wait(timeout=30)


def free_port() -> int:
    """A port that nothing listens on now; 8000 if it is free, as the documents write."""
    for port in (8000, 0):
        with socket.socket() as probe:
            # As servers do: a port that was closed a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Failed("no free port on 127.0.0.1")


def demo(options: argparse.Namespace) -> None:
    """Run all stages and end by naming the report and the success rate."""
    recipe = RECIPES[options.task, options.obs]
    out = Path(options.output_dir or f"demo/{options.task}-{options.obs}")
    if options.fresh and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    stages = Stages(out)
    raw, dataset, runs, rollouts = (out / n for n in ("raw", "lerobot", "checkpoints", "rollouts"))
    steps = options.steps or recipe.steps
    codec, *codec_flags = recipe.codec
    stages.run(
        "record",
        "record demonstrations of a scripted expert",
        [
            *("positronic-data-collection", "scripted", f"--env={options.task}"),
            *(f"--episodes={options.episodes or recipe.episodes}", f"--output_dir={raw}"),
            *recipe.record,
        ],
        raw,
    )
    stages.run(
        "convert",
        "convert them to a LeRobot dataset",
        [
            *("positronic-to-lerobot", "convert"),
            *("--dataset.dataset=@positronic.cfg.ds.local", f"--dataset.dataset.path={raw}"),
            *(f"--dataset.codec={codec}", *(f"--dataset.codec.{flag}" for flag in codec_flags)),
            *(f"--output_dir={dataset}", "--fps=15"),
        ],
        dataset,
    )
    stages.run(
        "train",
        "train ACT on it",
        [
            *("python", "-m", "positronic.vendors.lerobot.train", f"--dataset_root={dataset}"),
            *("--run_name=act", f"--output_dir={runs}", f"--policy={recipe.policy}"),
            *(f"--batch_size={recipe.batch_size}", f"--steps={steps}", f"--save_freq={steps}"),
            f"--device={options.device}",
            *(() if options.train_seed is None else (f"--seed={options.train_seed}",)),
        ],
        runs,
    )
    rollout = [
        *("positronic-inference", "sim", f"--env={options.task}", "--driver.simulation_time=20"),
        *(f"--driver.num_iterations={options.rollouts}", f"--seed={options.seed}"),
        *(f"--output_dir={rollouts}", SQUARE, "--policy=.remote", "--policy.host=localhost"),
    ]
    title = f"roll the served policy out {options.rollouts} times"
    if stages.done("rollouts", rollout):
        stages.run("rollouts", title, rollout, rollouts)
    else:
        port = free_port()
        server = [
            *("python", "-m", "positronic.vendors.lerobot.server"),
            *(f"--checkpoints_dir={runs / 'act'}", f"--port={port}", f"--device={options.device}"),
            # Which backend is fastest is measured, and may come out otherwise another time.
            "--backend=torch",
        ]
        with serving(server, out / "server.log"):
            stages.run("rollouts", title, rollout, rollouts, extra=f"--policy.port={port}")
    summary = json.loads((rollouts / "results.json").read_text())["summary"]
    if summary["success_rate"] is None:
        raise Failed(f"no rollout finished; {rollouts / 'report.html'} says why")
    low, high = (f"{100 * bound:.1f}" for bound in summary["wilson_95"])
    rate = f"{summary['successes']}/{summary['finished']} = {100 * summary['success_rate']:.0f} %"
    rate = coloured(f"success rate {rate}", "bold")
    print(f"\n{rate} (95 % Wilson interval {low} to {high})")
    print(f"all of it took {clock(began)}")
    report = rollouts / "report.html"
    if options.in_container:
        print(f"{coloured('report:', 'bold')} {report}")  # outside it has another root directory
        return
    say_made("report", report)
    other = "OBS=images" if options.obs == "state" else "TASK=pick_place"
    print(f"try also: make demo {other}; with recordings of your own: docs/raw_episodes.md")
    os.environ["PATH"] = PATH  # as it is where the next command is pasted
    serve = ("python", "-m", "positronic.vendors.lerobot.server")
    say_next(*serve, f"--checkpoints_dir={runs / 'act'}")


def clock(began: float) -> str:
    """Minutes and seconds since ``began``."""
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    return f"{minutes} min {seconds} s"


def main() -> int:
    """Parse the options, run the demo, say in one line what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    tasks, kinds = (sorted({key[i] for key in RECIPES}) for i in (0, 1))
    parser.add_argument("--task", choices=tasks, default="stack_cubes")
    parser.add_argument("--obs", choices=kinds, default="state", help="what the policy sees")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--episodes", type=int, help="demonstrations to record")
    parser.add_argument("--steps", type=int, help="training steps")
    parser.add_argument("--rollouts", type=int, default=50)
    # Far from the seeds of the demonstrations (0, 1, ...): no initial state was seen in training.
    parser.add_argument("--seed", type=int, default=100_000, help="seed of the first rollout")
    parser.add_argument("--train_seed", type=int, help="seed of the training run; default: train's")
    parser.add_argument("--output_dir", help="default: demo/<task>-<obs>")
    parser.add_argument("--in_container", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fresh", action="store_true", help="remove what an earlier demo left")
    options = parser.parse_args()
    os.environ["PATH"] = f"{BIN}{os.pathsep}{PATH}"
    try:
        demo(options)
    except Failed as failure:
        print(f"demo: error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
