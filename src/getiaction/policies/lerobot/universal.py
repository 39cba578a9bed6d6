"""LeRobotPolicy: the adapter from any LeRobot policy to a Lightning module."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.schedulers import LRSchedulerConfig

from getiaction.errors import GetiactionError
from getiaction.policies.lerobot import archive
from getiaction.policies.lerobot.configs import (
    policy_config,
    require_trainable,
    split_features,
    with_learning_rate,
)
from getiaction.policies.lerobot.making import (
    load_native,
    make_for_dataset,
    make_for_features,
    make_without_weights,
)
from getiaction.policies.lerobot.quirks import pack_counters, unpack_counters
from getiaction.policies.lerobot.sources import metadata_for, metadata_of, native_checkpoint
from getiaction.policies.lerobot.wrapped import Wrapped


class LeRobotPolicy(Wrapped):
    """Any LeRobot policy under a Lightning Trainer, trained as ``lerobot-train`` trains it.

    The network and its processors need the dataset's features and statistics. They are made in
    ``setup`` from the data that the trainer was given, or at once: by :meth:`create`,
    :meth:`from_dataset`, or when both features are given.

    Args:
        policy_name: A name in LeRobot's registry, see :func:`list_available_policies`.
        input_features: LeRobot's ``PolicyFeature`` by key. Given alone, they select the dataset's
            features that the policy sees.
        output_features: The same for outputs; both may be all features of the dataset.
        config: A finished LeRobot config, instead of a name and fields.
        dataset_stats: Statistics by feature, with ``input_features`` and ``output_features``.
        learning_rate: The config's ``optimizer_lr``; LeRobot's unless given.
        config_kwargs: Fields of LeRobot's config; the same as further keywords.
        stats: Another name of ``dataset_stats``.
        optimizer: Replaces the policy's optimizer preset.
        scheduler: Replaces the policy's learning-rate schedule preset.
        total_steps: Length of the schedule; the trainer's estimate unless given.
        **fields: Fields of LeRobot's config, e.g. ``chunk_size=20``.

    Raises:
        GetiactionError: no such policy or field, a value that LeRobot refuses, a policy that is not
            trained from datasets, a missing package, or contradictory arguments.
    """

    #: The policy that a class stands for; None where the name is an argument.
    POLICY_NAME: ClassVar[str | None] = None

    _counts: Mapping[str, int] | None = None
    #: Whether the checkpoint that it is loaded from may load what it names.
    _trusted = False
    #: Rows per second of the dataset that it is made for, and so actions.
    dataset_fps: float | None = None

    def __init__(
        self,
        policy_name: str | None = None,
        input_features: Mapping[str, Any] | None = None,
        output_features: Mapping[str, Any] | None = None,
        config: PreTrainedConfig | None = None,
        dataset_stats: Mapping[str, Any] | None = None,
        learning_rate: float | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        *,
        stats: Mapping[str, Any] | None = None,
        optimizer: OptimizerConfig | None = None,
        scheduler: LRSchedulerConfig | None = None,
        total_steps: int | None = None,
        **fields: Any,
    ) -> None:
        given = {**(config_kwargs or {}), **fields}
        if config is not None and given:
            raise GetiactionError(f"give either a config or its fields, not both: {list(given)}")
        if config is None and policy_name is None:
            raise GetiactionError("give a policy_name, as in LeRobotPolicy('act'), or a config")
        if config is not None and policy_name not in (None, config.type):
            raise GetiactionError(
                f"the config is of policy {config.type!r}, not of {policy_name!r}"
            )
        if None not in (dataset_stats, stats):
            raise GetiactionError("stats is another name of dataset_stats; give one of them")
        if None not in (optimizer, learning_rate):
            raise GetiactionError("the optimizer has a learning rate already; give one of them")
        config = config or policy_config(str(policy_name), given)
        require_trainable(config)
        super().__init__(
            with_learning_rate(config, learning_rate), optimizer, scheduler, total_steps
        )
        if output_features is not None:
            inputs = output_features if input_features is None else input_features
            self.config.input_features, self.config.output_features = split_features(
                inputs, output_features
            )
            self._take(make_for_features(self.config, dataset_stats or stats))
        elif input_features is not None:
            self.config.input_features = dict(input_features)

    def create(self, meta: Any, *, device: str = "cpu", pretrained: Path | None = None) -> Self:
        """Make the network and its processors.

        Args:
            meta: LeRobot's metadata of the dataset: features and statistics.
            device: Device of the network.
            pretrained: A native checkpoint's ``pretrained_model`` to take weights and processors
                from, instead of random weights.

        Raises:
            GetiactionError: the dataset lacks what the policy needs, a package is missing, or
                pretrained weights of its vision backbone cannot be downloaded.
        """
        self.config.device = device
        self.dataset_fps = getattr(meta, "fps", None)
        return self._take(make_for_dataset(self.config, meta, pretrained))

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        policy_name: str | None = None,
        *,
        use_imagenet_stats: bool = True,
        **settings: Any,
    ) -> Self:
        """Make a policy with its network for a dataset.

        Args:
            dataset: A ``LeRobotDataset``, its metadata, a data module, a local root, an ``s3://``
                or ``hf://`` URI, or a name on the hub.
            policy_name: A name in LeRobot's registry; not for a class that stands for one.
            use_imagenet_stats: Normalise camera images by ImageNet's mean and deviation.
            **settings: Further arguments of the class.
        """
        if policy_name is not None and policy_name != cls.POLICY_NAME:
            settings["policy_name"] = policy_name
        return cls(**settings).create(metadata_of(dataset, use_imagenet_stats=use_imagenet_stats))

    @classmethod
    def from_pretrained(cls, path: str | Path, *, trust_checkpoint: bool = False) -> Self:
        """Load a policy that LeRobot or :meth:`save_pretrained` wrote, onto the CPU.

        Args:
            path: A ``pretrained_model`` directory, or a checkpoint or run that has one; a Lightning
                ``.ckpt``; or a policy on the hub, ``USER/NAME`` or ``hf://USER/NAME[@REVISION]``.
            trust_checkpoint: Let it load models and tokenizers, and run their code, from the places
                that it names; policies other than act, diffusion, tdmpc and vqbet need it.

        Raises:
            GetiactionError: there is none, it is another policy than the class's, or loading it
                would be unsafe.
        """
        if Path(path).suffix == ".ckpt":
            return cls.load_from_checkpoint(path, trust_checkpoint=trust_checkpoint)
        config, made = load_native(native_checkpoint(path), trusted=trust_checkpoint)
        return cls._from_config(config)._take(made)

    # Lightning's also takes constructor arguments, which are in the checkpoint here.
    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: Any,
        map_location: Any = "cpu",
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        *,
        trust_checkpoint: bool = False,
    ) -> Self:
        """Load a policy from a Lightning checkpoint; the dataset is not needed.

        Args:
            checkpoint_path: The ``.ckpt`` file.
            map_location: Where to put the policy.
            hparams_file: Unused; the settings are in the checkpoint.
            strict: Whether every weight must be there; yes unless told otherwise.
            weights_only: Must stay True, so that no code in the file is run.
            trust_checkpoint: As in :meth:`from_pretrained`.

        Raises:
            GetiactionError: it cannot be read, is not a checkpoint of a LeRobotPolicy, or loading
                it would be unsafe.
        """
        if weights_only is False:
            raise GetiactionError(
                "weights_only=False would run code from the file; leave it away, since checkpoints "
                "of a LeRobotPolicy hold none"
            )
        with archive.reading(checkpoint_path):
            checkpoint = torch.load(  # noqa: TID251 - as plain data
                checkpoint_path, map_location="cpu", weights_only=True
            )
            entry = archive.require_entry(checkpoint, checkpoint_path, trusted=trust_checkpoint)
            policy = cls._from_config(
                archive.decode_config(entry["config"]),
                optimizer=archive.decode_optimizer(entry["optimizer"]),
                scheduler=archive.decode_scheduler(entry["scheduler"]),
                total_steps=entry["total_steps"],
            )
            policy._trusted = trust_checkpoint
            policy._make_like(entry)
            policy.load_state_dict(checkpoint["state_dict"], strict=strict is not False)
            policy.on_load_checkpoint(checkpoint)
        return policy.to(map_location).eval()

    @classmethod
    def _from_config(cls, config: PreTrainedConfig, **settings: Any) -> Self:
        if cls.POLICY_NAME not in (None, config.type):
            raise GetiactionError(
                f"it holds a policy {config.type!r}, not {cls.POLICY_NAME!r}; load it as "
                "LeRobotPolicy, or by the class of its own"
            )
        policy = cls.__new__(cls)
        LeRobotPolicy.__init__(policy, config=config, **settings)
        return policy

    def save_pretrained(self, directory: str | Path) -> None:
        """Write LeRobot's ``pretrained_model`` files: config, weights and both processors."""
        if self.lerobot_policy is None:
            raise GetiactionError("there is nothing to save before the policy was made")
        self.lerobot_policy.save_pretrained(directory)
        self.preprocessor.save_pretrained(directory)
        self.postprocessor.save_pretrained(directory)

    def setup(self, stage: str) -> None:
        """Make the network, if not yet made, for the trainer's data or from its checkpoint.

        Raises:
            GetiactionError: there is neither.
        """
        meta = metadata_for(self.trainer, self.config)
        if self.lerobot_policy is not None:
            return
        self.config.device = self.trainer.strategy.root_device.type
        if self.trainer.ckpt_path is not None:
            # Its weights and statistics are about to be loaded, so none need to be fetched.
            path = self.trainer.ckpt_path
            with archive.reading(path):
                checkpoint = self.trainer.strategy.load_checkpoint(path, weights_only=True)
                self._make_like(archive.require_entry(checkpoint, path, config=self.config))
        elif meta is not None:
            self.create(meta, device=self.config.device)
        else:
            raise GetiactionError(
                "the policy needs a dataset's features and statistics; fit it with a "
                "LeRobotDataModule or a DataLoader of a LeRobotDataset, or call create(meta)"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add config, processors with their statistics, and optimizer settings."""
        if self.lerobot_policy is not None:
            checkpoint[archive.ENTRY] = {
                "config": archive.encode(self.config, PreTrainedConfig),
                "preprocessor": archive.pack_processor(self.preprocessor),
                "postprocessor": archive.pack_processor(self.postprocessor),
                "optimizer": archive.encode(self.optimizer_config, OptimizerConfig),
                "scheduler": archive.encode(self.scheduler_config, LRSchedulerConfig),
                "total_steps": self.total_steps,
                "counters": pack_counters(self.lerobot_policy),
                "dataset_fps": self.dataset_fps,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the processors with the statistics that the weights were trained on.

        Raises:
            GetiactionError: the checkpoint is not of a LeRobotPolicy, or of another network.
        """
        entry = archive.require_entry(
            checkpoint, "the checkpoint", config=self.config, trusted=self._trusted
        )
        archive.require_same_network(
            entry["config"], self.config, checkpoint["state_dict"], self.state_dict()
        )
        self._take((self.lerobot_policy, *self._unpacked(entry)))
        self._counts = entry["counters"]

    def on_fit_start(self) -> None:
        """Restore the checkpoint's step counters, now that its weights are loaded."""
        counts, self._counts = self._counts, None
        if counts is not None:
            unpack_counters(self.lerobot_policy, counts)

    def _make_like(self, entry: archive.Plain) -> None:
        """Make the network with the checkpoint's features and this policy's config."""
        saved = archive.decode_config(entry["config"])
        self.dataset_fps = entry.get("dataset_fps")
        self.config.input_features = saved.input_features
        self.config.output_features = saved.output_features
        self._take((make_without_weights(self.config), *self._unpacked(entry)))

    def _unpacked(self, entry: archive.Plain) -> tuple[Any, Any]:
        return archive.unpack_processors(
            self.config, entry["preprocessor"], entry["postprocessor"], trusted=self._trusted
        )


#: The name that the approaches document has for it.
LeRobotPolicyAdapter = LeRobotPolicy
