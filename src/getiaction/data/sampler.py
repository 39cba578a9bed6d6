"""The order of training samples: LeRobot's, and able to go on in the middle of an epoch."""

from lerobot.datasets import EpisodeAwareSampler


class ResumableSampler(EpisodeAwareSampler):  # type: ignore[misc]
    """LeRobot's sampler, whose order is a function of (seed, epoch), under Lightning's epochs.

    Lightning counts epochs from 0 in every ``fit`` and tells the sampler so; after a resume that
    would replay the first epoch's order, which is what native LeRobot 0.6.1 does.
    """

    _first_epoch = 0

    def resume(self, epoch: int, start_index: int) -> None:
        """Begin at sample ``start_index`` of ``epoch`` instead of at the first of all."""
        self._first_epoch = epoch
        self.load_state_dict({"epoch": epoch, "start_index": start_index})

    def set_epoch(self, epoch: int) -> None:
        """Take Lightning's epoch, counted from where this process began."""
        super().set_epoch(self._first_epoch + epoch)
