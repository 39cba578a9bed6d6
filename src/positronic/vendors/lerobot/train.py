"""``python -m positronic.vendors.lerobot.train``: train a policy on a converted dataset.

Options, dataset and run directory are validated here, before torch is imported; the training itself
is in :mod:`positronic.vendors.lerobot.training.run`.
"""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import configuronic as cfn

from foundation import storage
from foundation.errors import NotFound
from foundation.stopping import Stopped, StopSignals
from getiaction.errors import GetiactionError
from getiaction.roots import pinned_dataset
from positronic.cli.kinds import DATASET, found_instead
from positronic.codec import Contract
from positronic.vendors.lerobot.pushing import POLICY, Destination
from positronic.vendors.lerobot.training import config_file, presets
from positronic.vendors.lerobot.training.job import (
    TrainingJob,
    across_processes,
    in_first_process,
)
from positronic.vendors.lerobot.training.options import Options
from positronic.vendors.lerobot.training.preflight import DATASET_CONTRACT, dataset_contract
from positronic.vendors.lerobot.training.remote_run import run_directory
from positronic.vendors.lerobot.training.run_directory import (
    CHECKPOINTS,
    LAST,
    RunDirectory,
    say,
)

PROG = "python -m positronic.vendors.lerobot.train"
INFO = "meta/info.json"


def _train(**flags: Any) -> int:
    options = Options(**flags).settled()
    if options.config == config_file.PRINT:
        _settle_threads()
        from positronic.vendors.lerobot.training.effective import settings

        print(config_file.dump(settings(options)), end="")
        return 0
    options = across_processes(options)
    with (
        StopSignals() as signals,
        run_directory(options.output_dir, options.run_name) as run,
    ):
        try:
            return _run(options, run, signals)
        except Stopped as stopped:
            say(f"{stopped.signal.name}: ended before the first step, with nothing to save")
            return 128 + stopped.signal


def _run(options: Options, run: RunDirectory, signals: StopSignals) -> int:
    to = None
    if in_first_process():
        if not options.resume:
            run.require_fresh()
        if options.push_to_hub is not None:
            to = Destination(
                POLICY, options.push_to_hub, private=options.private, flag="push_to_hub"
            )
        # Checked before the dataset is fetched and torch is loaded.
        storage.require_writable(run.path)
    root, contract = _dataset(options)
    job = TrainingJob(
        options=options,
        dataset_root=root,
        run=run,
        contract=contract,
        resume_from=_resume_point(run, contract) if options.resume else None,
    )
    _settle_threads()
    if in_first_process():
        say(
            f"training {options.policy.name} on {options.dataset_root} in {run.place}: loading "
            "PyTorch and LeRobot ..."
        )
    from positronic.vendors.lerobot.training import run as training_run

    status = training_run.run(job, signals)
    if to is not None and status == 0:
        policy = f"{CHECKPOINTS}/{LAST}/pretrained_model"
        to.push(run.path / policy, f"{run.path}/{policy}")
    return status


_train.__doc__ = Options.__doc__
# Read by inspect; functions are not typed to have it.
_train.__signature__ = inspect.signature(Options)  # type: ignore[attr-defined]
train = cfn.Config(_train, policy=presets.act)


def _settle_threads() -> None:
    """Keep OpenMP's idle threads from spinning; call before torch is imported.

    With one other busy process, spinning made a step on two cores three to ten times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _dataset(options: Options) -> tuple[Path, Contract]:
    """Return the dataset's local path, fetched if it is elsewhere, and its contract."""
    place = options.dataset_root
    try:
        return _fetched(pinned_dataset(place), options)
    except (GetiactionError, NotFound) as error:
        raise type(error)(f"{error}{found_instead(place, DATASET)}") from error


def _fetched(place: str, options: Options) -> tuple[Path, Contract]:
    if not storage.is_remote(place):
        root = storage.local(place)
        return root, dataset_contract(root, options.codec)
    # Validate the metadata before the frames are fetched.
    meta = storage.fetch(place, only=lambda name: name.startswith("meta/"), required=INFO)
    dataset_contract(meta, options.codec)
    root = storage.fetch(place, required=INFO)
    return root, dataset_contract(root, options.codec)


def _resume_point(run: RunDirectory, contract: Contract) -> Path | None:
    """Return the newest complete checkpoint; refuse one trained with another contract."""
    found = run.resume() if in_first_process() else run.newest()
    if found is None:
        say(f"{run.place} was ended before its first checkpoint; beginning at step 0")
        return None
    saved = found / "pretrained_model" / DATASET_CONTRACT.name
    if saved.is_file():
        where = f"checkpoint {run.place}/checkpoints/{found.name}"
        Contract.load(saved).require_same(contract, where, "the dataset to go on with")
    return found


def status(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    from positronic import cli

    return cli.status(train, PROG, argv, prepare=config_file.prepare)


def main() -> None:
    """Run the command line."""
    from positronic.cli import run

    run(train, PROG, prepare=config_file.prepare)


if __name__ == "__main__":
    main()
