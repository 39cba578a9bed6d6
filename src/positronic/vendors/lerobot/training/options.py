"""Command-line options of training: their meaning and the values they may have."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from foundation.errors import UsageError
from foundation.text import did_you_mean
from positronic.cfg.components import CODEC
from positronic.cli.components import Component
from positronic.codec import Codec
from positronic.vendors.lerobot.codecs import require_codec
from positronic.vendors.lerobot.training import presets
from positronic.vendors.lerobot.training.presets import PolicyPreset

CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"),
    "wandb": ("auto", "online", "offline", "off"),
    "cache": ("auto", "off", "memory", "disk"),
}
# The smallest value of each count.
LEAST = {
    "steps": 1,
    "save_freq": 0,
    "batch_size": 1,
    "num_workers": 0,
    "log_freq": 1,
    "devices": 1,
    "accumulate": 1,
    "eval_freq": 1,
    "eval_episodes": 1,
    "cache_gib": 0,
}


PRESET = Component(
    "policy",
    (presets.__name__,),
    lambda value: isinstance(value, PolicyPreset),
    otherwise="any policy's name in LeRobot such as diffusion",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a LeRobot policy on a converted dataset, with Lightning.

    Checkpoints appear in OUTPUT_DIR/RUN_NAME/checkpoints/STEP in LeRobot's layout, each as a whole
    or not at all, with the contract that the server checks. Beside them are config.yaml, from
    which `--config` begins the same run again, and TensorBoard's logs.

    Example:
        positronic-train --dataset_root=DATASET --run_name=first --output_dir=OUTPUT_DIR
            --policy=.act_state

    Args:
        dataset_root: what `positronic-to-lerobot convert` wrote; a directory, s3://bucket/path or
            hf://datasets/USER/NAME[@REVISION].
        run_name: unique name of this run.
        output_dir: where the run's directory is made; a directory or s3://bucket/path.
        policy: what to train: any name in LeRobot, as --policy=diffusion, or a preset: .act (full
            size), .act_state (small, no images, for a CPU), .act_64px (small, 64x64 images, for a
            CPU). `--policy=diffusion --help` lists the fields of that policy; those of .act come
            last here.
        steps: training steps in total, those before a resume included.
        save_freq: steps between checkpoints; the last step is always saved.
        codec: refuse to train unless the dataset was converted with this codec.
        resume: go on from the newest whole checkpoint of this run, with the settings it was begun
            with, but for the flags given.
        batch_size: samples a step and device; the policy's own unless given.
        num_workers: processes that load data; none are needed if the dataset fits in memory.
        seed: decides initial weights, the order of samples and dropout.
        log_freq: steps between lines of the log.
        device: auto, cpu or cuda.
        devices: how many of them; each takes a batch of its own, as lerobot-train has it. Under
            torchrun they are its processes, on all machines.
        precision: 32-true, bf16-mixed or 16-mixed; the policy's own unless given.
        accumulate: batches whose gradients are added up before each step.
        compile: compile the policy's network; its first steps take minutes.
        cache: where decoded camera frames are kept: in memory; on disk, for other runs as well;
            off; or auto, which is memory if they fit in a GiB.
        cache_gib: how much the cache may hold, in GiB; 1 in memory or 32 on disk unless given.
        val_split: share of the episodes, the last ones of each task, that is held out to compute
            the loss of every eval_freq steps; each task keeps one to train on.
        eval_env: an environment to roll out in every eval_freq steps, e.g. stack_cubes or
            positronic/StackCubes-v0.
        eval_episodes: rollouts each time.
        eval_freq: steps between evaluations; save_freq unless given.
        wandb: auto (online if WANDB_API_KEY is set), online, offline or off.
        push_to_hub: USER/NAME: at the end push the policy to the Hugging Face Hub.
        private: whether only its owner sees that repository, if it is made anew.
        config: a file of settings, such as a run's config.yaml, which other flags override; or
            print, to see the settings as they would be and train nothing.
    """

    dataset_root: str
    run_name: str
    output_dir: str
    policy: Annotated[PolicyPreset, PRESET]
    steps: int = 100_000
    save_freq: int = 20_000
    codec: Annotated[Codec | None, CODEC] = None
    resume: bool = False
    batch_size: int | None = None
    num_workers: int | None = None
    seed: int = 1000
    log_freq: int = 200
    device: str = "auto"
    devices: int = 1
    precision: str | None = None
    accumulate: int = 1
    compile: bool = False
    cache: str = "auto"
    cache_gib: float | None = None
    val_split: float = 0.0
    eval_env: str | None = None
    eval_episodes: int = 10
    eval_freq: int | None = None
    wandb: str = "auto"
    push_to_hub: str | None = None
    private: bool = True
    config: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse invalid values.

        Raises:
            UsageError: naming the flag and what is expected.
        """
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name} is {value}; expected {least} or more")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                hint = did_you_mean(str(value), choices)
                raise UsageError(
                    f"--{name} is {value!r}; expected one of: {', '.join(choices)}{hint}"
                )
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"--seed is {self.seed}; expected a number from 0 to {(1 << 32) - 1}")
        PRESET.require(self.policy, "policy")
        if self.codec is not None:
            require_codec(self.codec, "codec")
        if not 0 <= self.val_split < 1:
            raise UsageError(f"--val_split is {self.val_split}; expected a share from 0 to below 1")
        if self.eval_env is not None:
            _require_environment(self.eval_env)
        # None: printed with --config=print, still missing.
        if self.run_name is not None and (self.run_name in ("", ".", "..") or "/" in self.run_name):
            raise UsageError(f"--run_name is {self.run_name!r}; expected the name of a directory")

    def settled(self) -> Self:
        """Return the options with defaults that depend on others filled in."""
        return dataclasses.replace(
            self,
            batch_size=self.batch_size or self.policy.batch_size,
            eval_freq=self.eval_freq or self.save_freq or self.steps,
        )

    @property
    def evaluates(self) -> bool:
        """Whether training is interrupted for evaluations."""
        return bool(self.val_split) or self.eval_env is not None


def _require_environment(name: str) -> None:
    """Refuse an unknown environment of this project; other ids are left to Gymnasium."""
    from positronic.simulator import env_id

    if name.startswith("positronic/") or "/" not in name:
        env_id(name)


def names() -> list[str]:
    """Return the names of the flags, in order."""
    return [f.name for f in dataclasses.fields(Options)]


def as_dict(options: Options) -> dict[str, Any]:
    """Return the options by flag name."""
    return {name: getattr(options, name) for name in names()}
