"""Training is killed again and again, at moments of every kind, and loses nothing."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from foundation import storage
from foundation.manifest import faults
from positronic.vendors.lerobot.serving.checkpoints import Checkpoint
from tests.e2e.training_processes import Training, forkserver
from tests.positronic.vendors.lerobot.small_dataset import write_dataset
from tests.s3 import Faulty
from tests.terminal import terminal

pytestmark = pytest.mark.e2e

STEPS, SAVE_FREQ = 60, 4
TINY = [
    "--policy=.act_state",
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=32",
    "--policy.chunk_size=6",
    "--policy.n_action_steps=4",
    "--policy.warmup_steps=2",
    f"--steps={STEPS}",
    f"--save_freq={SAVE_FREQ}",
    "--batch_size=4",
    "--log_freq=1",
    "--device=cpu",
    # An epoch has 4 batches, 2 steps.
    "--accumulate=2",
    "--val_split=0.5",
    "--eval_freq=7",
]


@pytest.fixture(scope="module")
def context() -> Any:
    return forkserver()


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("kill") / "dataset", lengths=(14, 15))


class Run:
    """A run that is started until it has come to its end."""

    def __init__(
        self, context: Any, tmp_path: Path, dataset_root: str | Path, output_dir: str | Path
    ) -> None:
        self.context, self.logs = context, tmp_path
        self.flags = [f"--dataset_root={dataset_root}", f"--output_dir={output_dir}", *TINY]
        self.place = storage.join(output_dir, "run")
        self.losses: dict[int, str] = {}
        self.reached = self.starts = 0

    def start(self) -> Training:
        again = ["--resume=True"] if self.starts else []
        self.starts += 1
        argv = [*self.flags, "--run_name=run", *again]
        return Training(self.context, argv, self.logs / f"log-{self.starts}")

    def take(self, training: Training, *, lost_at_most: int) -> None:
        """Compare what it did with what was done before."""
        done = training.losses
        assert done, training.output
        if self.losses:
            # Of the last start that took steps; one before it may have come further, and have
            # lost that with its disk.
            repeated = self.reached + 1 - min(done)
            assert repeated <= lost_at_most, f"start {self.starts} repeats {repeated} steps"
        self.reached = max(done)
        for step, loss in done.items():
            assert self.losses.setdefault(step, loss) == loss, f"step {step}"

    def weights(self) -> bytes:
        name = f"{STEPS:06d}/pretrained_model/model.safetensors"
        return storage.read_bytes(storage.join(self.place, "checkpoints", name))


@pytest.fixture(scope="module")
def whole(context: Any, dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run without interruptions."""
    tmp_path = tmp_path_factory.mktemp("whole")
    run = Run(context, tmp_path, dataset_root, tmp_path)
    training = run.start()
    assert training.status() == 0, training.output
    run.take(training, lost_at_most=0)
    assert sorted(run.losses) == list(range(1, STEPS + 1))
    return run


def verify(checkpoint: Path) -> int:
    """See that a checkpoint which claims to be whole is; return its step."""
    assert faults(checkpoint) == []
    Checkpoint(checkpoint / "pretrained_model", checkpoint.name, "run").verify()
    for part in ("pretrained_model/model", "training_state/optimizer_state"):
        assert load_file(checkpoint / f"{part}.safetensors")
    return int(checkpoint.name)


def verify_local(checkpoints: Path) -> None:
    found = checkpoints.iterdir() if checkpoints.is_dir() else []
    steps = [verify(path) for path in found if path.name.isdigit()]
    if (checkpoints / "last").is_symlink():
        assert verify((checkpoints / "last").resolve()) in steps


def verify_remote(place: str) -> None:
    checkpoints = storage.join(place, "checkpoints")
    there = storage.children(checkpoints)
    whole = [name for name in there if storage.is_whole(storage.join(checkpoints, name))]
    for name in set(whole) - {"last"}:
        verify(storage.fetch(storage.join(checkpoints, name)))
    if "last" in there:
        assert storage.read_bytes(storage.join(checkpoints, "last")).decode().strip() in whole


def strike_locally(rng: random.Random, run: Run, checkpoints: Path) -> Callable[[Training], None]:
    """Choose a moment: while it starts, trains, or saves; the function waits for it."""
    kind = rng.choice(["start", "train", "save", "save"])
    if kind == "start":
        pause = rng.uniform(0.05, 1.5)
        return lambda training: time.sleep(pause)
    goal = max(run.losses, default=0) + rng.randint(1, 9)
    pause = rng.uniform(0, 0.01)

    def wait(training: Training) -> None:
        training.wait_until(lambda: max(training.losses, default=0) >= goal)
        if kind == "save":
            training.wait_until(lambda: any(checkpoints.glob(".unfinished-*")))
        time.sleep(pause)

    return wait


def strike_at_request(rng: random.Random, proxy: Faulty) -> Callable[[Training, int], None]:
    """Choose a request to S3 before which the process gets the signal."""
    count = rng.randint(1, 40)

    def wait(training: Training, signum: int) -> None:
        puts = 0

        def watch(method: str, path: str) -> None:
            nonlocal puts
            puts += method == "PUT"
            if puts == count:
                training.send(signum)

        proxy.watch = watch
        training.wait_until(lambda: puts >= count)
        proxy.watch = None

    return wait


def begin_again(run: Run, remove: Callable[[], None]) -> None:
    """It came to its end before all kills: the same once more."""
    remove()
    run.starts, run.losses = 0, {}


def test_killed_on_a_local_disk(
    context: Any, dataset_root: Path, tmp_path: Path, whole: Run
) -> None:
    run = Run(context, tmp_path, dataset_root, tmp_path / "out")
    checkpoints = Path(run.place) / "checkpoints"
    rng = random.Random(4)
    kills = terms = 0
    while kills < 9 or terms < 3:
        signum = signal.SIGTERM if rng.random() < 0.25 else signal.SIGKILL
        wait = strike_locally(rng, run, checkpoints)
        training = run.start()
        wait(training)
        training.send(signum)
        status = training.status()
        verify_local(checkpoints)
        if training.losses:
            run.take(training, lost_at_most=SAVE_FREQ)
        if status == 0:
            begin_again(run, lambda: shutil.rmtree(run.place))
        elif signum == signal.SIGKILL:
            assert status == -signal.SIGKILL, training.output
            kills += 1
        else:
            require_stopped(training, checkpoints)
            terms += 1
        if not checkpoints.parent.is_dir():
            run.starts = 0  # before it had begun
    finish(run)
    assert run.losses == whole.losses
    assert run.weights() == whole.weights()


def test_killed_while_it_publishes(
    context: Any, dataset_root: Path, tmp_path: Path, whole: Run, faulty: Faulty, s3: Any
) -> None:
    storage.publish(dataset_root, "s3://bucket/dataset")
    run = Run(context, tmp_path, "s3://bucket/dataset", "s3://bucket/out")
    rng = random.Random(5)
    kills = terms = 0
    disk_lost = False
    while kills < 9 or terms < 3:
        signum = signal.SIGTERM if rng.random() < 0.25 else signal.SIGKILL
        strike = strike_at_request(rng, faulty)
        if rng.random() < 0.4:
            shutil.rmtree(tmp_path / "cache")
            disk_lost = True
        training = run.start()
        strike(training, signum)
        status = training.status()
        verify_remote(run.place)
        for checkpoints in (tmp_path / "cache/positronic/runs").glob("*/run/checkpoints"):
            verify_local(checkpoints)
        if training.losses:
            # What was still on its way is lost with the disk; the next start to take a step shows
            # it, which need not be the very next one.
            run.take(training, lost_at_most=STEPS if disk_lost else SAVE_FREQ)
            disk_lost = False
        if status == 0:
            begin_again(run, lambda: remove_run(s3))
        elif signum == signal.SIGKILL:
            assert status == -signal.SIGKILL, training.output
            kills += 1
        else:
            require_stopped(training, None)
            terms += 1
            if training.losses:
                last = storage.read_bytes(storage.join(run.place, "checkpoints/last"))
                assert int(last) == max(training.losses)
        if not storage.exists(run.place):
            run.starts = 0  # before it had begun
    shutil.rmtree(tmp_path / "cache")
    finish(run, STEPS)
    assert run.losses == whole.losses
    assert run.weights() == whole.weights()


def test_ctrl_c_in_a_terminal_reaches_worker_processes_too(
    context: Any, dataset_root: Path, tmp_path: Path
) -> None:
    run = Run(context, tmp_path, dataset_root, tmp_path / "out")
    run.flags.append("--num_workers=2")
    training = run.start()
    training.wait_until(lambda: max(training.losses, default=0) >= 5)
    training.interrupt()
    assert training.status() == 128 + signal.SIGINT, training.output
    assert "Traceback" not in training.output
    run.take(training, lost_at_most=0)
    assert verify(Path(run.place) / f"checkpoints/{max(run.losses):06d}")


def test_a_closed_terminal_ends_it_with_a_checkpoint(
    context: Any, dataset_root: Path, tmp_path: Path
) -> None:
    run = Run(context, tmp_path, dataset_root, tmp_path / "out")
    # No other checkpoint than that of the signal and the last.
    run.flags[run.flags.index(f"--save_freq={SAVE_FREQ}")] = "--save_freq=1000"
    run.flags.append("--num_workers=2")
    code = "from positronic.vendors.lerobot.train import main; main()"
    with terminal(code, *run.flags, "--run_name=run") as screen:
        screen.wait_for(" 5/60")
        screen.close()
        assert screen.status() == 128 + signal.SIGHUP
    saved = verify((Path(run.place) / "checkpoints/last").resolve())
    assert 5 <= saved < STEPS
    run.starts = 1
    finish(run)
    assert min(run.losses) == saved + 1


def require_stopped(training: Training, checkpoints: Path | None) -> None:
    """After SIGTERM the last step that was done is saved."""
    assert training.process.exitcode == 128 + signal.SIGTERM, training.output
    if training.losses and checkpoints is not None:
        assert verify(checkpoints / f"{max(training.losses):06d}") == max(training.losses)


def remove_run(s3: Any) -> None:
    found = s3.list_objects_v2(Bucket="bucket", Prefix="out/")
    objects = [{"Key": entry["Key"]} for entry in found["Contents"]]
    s3.delete_objects(Bucket="bucket", Delete={"Objects": objects})


def finish(run: Run, lost_at_most: int = SAVE_FREQ) -> None:
    training = run.start()
    assert training.status() == 0, training.output
    run.take(training, lost_at_most=lost_at_most)
