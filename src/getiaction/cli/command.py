"""LightningCLI over policies and data modules: ``fit``, ``validate``, ``test`` and ``predict``."""

import logging
import os
import shlex
import sys
from typing import Any, NoReturn

import fsspec
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import getiaction.data
import getiaction.gyms
import getiaction.policies.lerobot
import getiaction.train.callbacks  # noqa: F401 - imported classes are found by their bare names
from foundation.console import EXIT_USAGE
from foundation.stopping import Stopped
from getiaction.cli.commands import PROG
from getiaction.cli.completion import OPTION, completion_script
from getiaction.cli.explain import explain
from getiaction.cli.universal import flat_flags, make_named, use_loader
from getiaction.policies.base import Policy
from getiaction.policies.lerobot.archive import reading
from getiaction.train import Trainer
from getiaction.train.callbacks import StopOnSignal

# As LeRobot's.
DEFAULT_SEED = 1000


class Parser(LightningArgumentParser):
    """A parser with one-line error messages."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with status 2; nested parsers raise."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        print(f"{PROG}: error: {explain(message, parser)}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


class Command(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` of :class:`getiaction.train.Trainer`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Store the parser of each command; Lightning calls this in the order of the commands."""
        self.parsers = [*getattr(self, "parsers", []), parser]

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; unlike Lightning's, without a warning if called from Python."""
        assert isinstance(args, list)
        shell = _completed_shell(args)
        if shell is not None:
            print(
                completion_script(shell, dict(zip(self.subcommands(), self.parsers, strict=True)))
            )
            sys.exit()
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        # Lightning would take settings and the model's class from the file here; only the command
        # line determines those. A file that is not a checkpoint is rejected at once.
        arguments = self.config[self.config.subcommand] if self.config.get("subcommand") else {}
        path = arguments.get("ckpt_path")
        with reading(path):
            if path and os.path.isfile(path):
                # Weights only, here and wherever it is loaded.
                torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251

    def fit(self, model: Policy, **options: Any) -> None:
        """Fit; after a signal or Ctrl-C print the saved checkpoint and how to resume."""
        trainer: Any = self.trainer
        trainer.next_step = self._next_command
        try:
            trainer.fit(model, **options)
        except Stopped as stopped:
            saved = next(c.saved for c in trainer.callbacks if isinstance(c, StopOnSignal))
            # Before the first step there is nothing to save.
            kept = (
                f"saved as {saved}; --ckpt_path={saved} resumes" if saved else "nothing was saved"
            )
            name, step = stopped.signal.name, trainer.global_step
            print(f"{PROG}: {name}: ended after step {step}, {kept}", file=sys.stderr)
            raise

    def _next_command(self, checkpoint: str) -> str:
        data: Any = self.datamodule
        rolls_out = bool(getattr(data, "test_gyms", None))
        evaluates = "validate" if sum(self.trainer.num_val_batches) else "predict"
        config = os.path.join(self.trainer.log_dir or self.trainer.default_root_dir, "config.yaml")
        words = ["test" if rolls_out else evaluates, f"--config={config}"]
        return shlex.join([PROG, *words, f"--ckpt_path={checkpoint}"])

    def predict(self, model: Policy, **options: Any) -> None:
        """Predict, and write the predictions to a file."""
        predictions = self.trainer.predict(model, **options)
        if predictions:
            trainer = self.trainer
            name = (
                "predictions.pt"
                if trainer.world_size == 1
                else f"predictions_{trainer.global_rank}.pt"
            )
            path = os.path.join(trainer.log_dir or trainer.default_root_dir, name)
            with fsspec.open(path, "wb", auto_mkdir=True) as file:
                torch.save(predictions, file)
            print(f"predictions of {len(predictions)} batches: {path}")


def run(argv: list[str]) -> Any:
    """Run one command line.

    Args:
        argv: The arguments, without the program's name.

    Raises:
        SystemExit: status 2 after an invalid command line, 0 after ``--help``.
    """
    # Lightning 2.6 uses deprecated API of jsonargparse.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # LeRobot's first warning would otherwise choose another form.
    logging.basicConfig(format="%(levelname)s: %(message)s")
    make_named(argv)
    options = {"parser_mode": use_loader(), "allow_abbrev": False}
    return Command(
        Policy,
        LightningDataModule,
        trainer_class=Trainer,
        trainer_defaults={"callbacks": [StopOnSignal()]},
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=DEFAULT_SEED,
        # A run resumed in its own directory saves its configuration again.
        save_config_kwargs={"overwrite": True},
        parser_class=Parser,
        parser_kwargs={
            "prog": PROG,
            **options,
            **{command: dict(options) for command in Command.subcommands()},
        },
        args=flat_flags(argv),
    )


def _completed_shell(argv: list[str]) -> str | None:
    """The shell of a requested completion script, or None."""
    name, _, value = (argv or [""])[0].partition("=")
    return (value or "".join(argv[1:2])) if name == OPTION else None
