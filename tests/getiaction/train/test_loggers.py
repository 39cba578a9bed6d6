"""What was logged is read back from what each kind of logger wrote, without any network."""

import contextlib
import csv
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from tests.getiaction.train.small import Metrics, data, drift, policy, trainer
from tests.waiting import until

NAMES = ("train/loss", "val/loss", "val/gym/success", "val/gym/reward_mean")


class Run(NamedTuple):
    directory: Path
    losses: list[float]
    validated: dict[str, float]


@pytest.fixture(scope="module")
def run(state_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("logged")
    metrics = Metrics()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "WANDB_DIR": str(directory / "wandb"),
            # What mlflow-skinny can do without a database.
            "MLFLOW_ALLOW_FILE_STORE": "true",
        }.items():
            patch.setenv(name, value)
        (directory / "wandb").mkdir()
        loggers: list[Any] = [
            TensorBoardLogger(directory, name="tensorboard", version=""),
            CSVLogger(directory, name="csv", version=""),
            WandbLogger(project="pusht", save_dir=directory / "wandb", offline=True),
            MLFlowLogger("pusht", tracking_uri=(directory / "mlflow").as_uri()),
        ]
        trainer(directory, callbacks=[metrics], logger=loggers, log_every_n_steps=1).fit(
            policy(), data(state_root, val_gyms=drift(), val_split=0.3)
        )
        loggers[2].experiment.finish()
    (validated,) = metrics.at_step.values()
    return Run(directory, metrics.losses, validated)


def check(run: Run, logged: dict[str, list[float]]) -> None:
    """Compare what a logger holds, by name and in order, with what was computed."""
    assert logged["train/loss"] == pytest.approx(run.losses, rel=1e-5)
    assert len(run.losses) > 1
    for name in NAMES[1:]:
        assert logged[name] == pytest.approx([run.validated[name]], rel=1e-5)


def test_csv(run: Run) -> None:
    with (run.directory / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    check(run, {name: [float(row[name]) for row in rows if row[name]] for name in NAMES})


def test_tensorboard(run: Run) -> None:
    # By name, as below: their stubs are missing or say less than there is.
    package = "tensorboard.backend.event_processing.event_accumulator"
    events: Any = import_module(package).EventAccumulator(str(run.directory / "tensorboard"))
    events.Reload()
    check(run, {name: [event.value for event in events.Scalars(name)] for name in NAMES})


def test_wandb(run: Run) -> None:
    (path,) = (run.directory / "wandb").rglob("run-*.wandb")
    # W&B's own process writes it, and has not finished when finish() returns.
    until(lambda: any(r.WhichOneof("record_type") == "exit" for r in wandb_records(path)), "W&B")
    logged: dict[str, list[float]] = {name: [] for name in NAMES}
    for record in wandb_records(path):
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            if name in logged:
                logged[name].append(float(item.value_json))
    check(run, logged)


def wandb_records(path: Path) -> list[Any]:
    """What is in W&B's file so far."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    store: Any = import_module("wandb.sdk.internal.datastore").DataStore()
    store.open_for_scan(str(path))
    records = []
    with contextlib.suppress(AssertionError):  # half a record at its end
        while (data := store.scan_data()) is not None:
            records.append(messages.Record.FromString(data))
    store.close()
    return records


def test_mlflow(run: Run) -> None:
    logged = {}
    for name in NAMES:
        (path,) = (run.directory / "mlflow").glob(f"*/*/metrics/{name}")
        lines = [line.split() for line in path.read_text().splitlines()]
        logged[name] = [float(value) for _, value, _ in sorted(lines, key=lambda f: int(f[2]))]
    check(run, logged)
