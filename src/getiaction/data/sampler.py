"""Resumable sampler: LeRobot's order of training samples, also from the middle of an epoch."""

from typing import Any

from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset
from torch.utils.data import IterableDataset

from getiaction.data.gather import GatheredDataset
from getiaction.errors import GetiactionError


class ResumableSampler(EpisodeAwareSampler):
    """LeRobot's sampler, whose order is a function of (seed, epoch), under Lightning's epochs.

    Lightning counts epochs from 0 in every ``fit`` and passes that to the sampler; after a resume
    this would replay the first epoch's order, as native LeRobot 0.6.1 does.
    """

    first_epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return int(self._epoch)

    def resume(self, epoch: int, start_index: int, *, first_epoch: int | None = None) -> None:
        """Start at sample ``start_index`` of ``epoch``.

        Args:
            epoch: The epoch to start with.
            start_index: Number of its samples that were already trained on.
            first_epoch: The epoch that Lightning counts as 0; by default ``epoch``.
        """
        self.first_epoch = epoch if first_epoch is None else first_epoch
        self.load_state_dict({"epoch": epoch, "start_index": start_index})

    def take_start_index(self) -> int:
        """Return the number of samples to skip, and reset it; the caller skips them."""
        state = self.state_dict()
        self.load_state_dict({**state, "start_index": 0})
        return int(state["start_index"])

    def set_epoch(self, epoch: int) -> None:
        """Set Lightning's epoch, counted from the start of this process."""
        super().set_epoch(self.first_epoch + epoch)


def sampler_of(
    dataset: Any, seed: int, *, shuffle: bool, drop_n_last_frames: int = 0
) -> ResumableSampler | None:
    """Return a sampler with the order of native training.

    Args:
        dataset: A LeRobot dataset, also as arrays, or any other; None for an iterable dataset.
        seed: Determines, with the epoch, the order.
        shuffle: Whether to shuffle.
        drop_n_last_frames: Number of frames at the end of each episode to leave out.

    Raises:
        GetiactionError: no frames are left.
    """
    if isinstance(dataset, IterableDataset):
        return None
    opened = dataset.dataset if isinstance(dataset, GatheredDataset) else dataset
    if not isinstance(opened, LeRobotDataset):
        return ResumableSampler([0], [len(opened)], shuffle=shuffle, seed=seed)
    try:
        return _sampler_of_episodes(opened, seed, shuffle, drop_n_last_frames)
    except ValueError as error:
        raise GetiactionError(
            f"the policy leaves out the last {drop_n_last_frames} frames of each episode, and no "
            "episode of the dataset is longer"
        ) from error


def _sampler_of_episodes(
    opened: LeRobotDataset, seed: int, shuffle: bool, drop_n_last_frames: int
) -> ResumableSampler:
    return ResumableSampler(
        opened.meta.episodes["dataset_from_index"],
        opened.meta.episodes["dataset_to_index"],
        episode_indices_to_use=opened.episodes,
        drop_n_last_frames=drop_n_last_frames,
        shuffle=shuffle,
        seed=seed,
        absolute_to_relative_idx=opened.absolute_to_relative_idx,
    )
