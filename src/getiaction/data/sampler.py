"""The order of training samples: LeRobot's, and able to go on in the middle of an epoch."""

from lerobot.datasets import EpisodeAwareSampler


class ResumableSampler(EpisodeAwareSampler):  # type: ignore[misc]
    """LeRobot's sampler, whose order is a function of (seed, epoch), under Lightning's epochs.

    Lightning counts epochs from 0 in every ``fit`` and tells the sampler so; after a resume that
    would replay the first epoch's order, which is what native LeRobot 0.6.1 does.
    """

    first_epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch whose order the next iteration gives."""
        return int(self._epoch)

    def resume(self, epoch: int, start_index: int, *, first_epoch: int | None = None) -> None:
        """Begin at sample ``start_index`` of ``epoch`` instead of at the first of all.

        Args:
            epoch: The epoch to begin with.
            start_index: Samples of it that were trained on already.
            first_epoch: The epoch that Lightning calls 0; ``epoch`` unless given.
        """
        self.first_epoch = epoch if first_epoch is None else first_epoch
        self.load_state_dict({"epoch": epoch, "start_index": start_index})

    def take_start_index(self) -> int:
        """Return the samples to leave out and forget them: who asks leaves them out."""
        state = self.state_dict()
        self.load_state_dict({**state, "start_index": 0})
        return int(state["start_index"])

    def set_epoch(self, epoch: int) -> None:
        """Take Lightning's epoch, counted from where this process began."""
        super().set_epoch(self.first_epoch + epoch)
