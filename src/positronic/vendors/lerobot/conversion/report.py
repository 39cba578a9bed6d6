"""Options of a conversion, and the report of how it ended."""

from dataclasses import asdict, dataclass
from typing import Any

from positronic.vendors.lerobot.conversion.provenance import Provenance

SHOWN = 3


@dataclass(frozen=True)
class Options:
    """Settings of a conversion that have a default.

    Attributes:
        task: what the robot was to do, instead of what each episode says.
        video: store images as video, otherwise as PNG pictures.
        workers: processes that encode, 0 for none but this; by default one per processor where
            there are images.
        vcodec: one of `VCODECS`.
        robot_type: written into the dataset, instead of what the first episode says.
        share: of the episodes, chosen at random, kept in order.
        seed: of that choice.
        resume: go on with an unfinished conversion.
    """

    task: str | None = None
    video: bool = True
    workers: int | None = None
    vcodec: str = "h264"
    robot_type: str | None = None
    share: float = 1.0
    seed: int = 42
    resume: bool = False

    def decisive(self) -> dict[str, Any]:
        """Those that decide the result."""
        return {k: v for k, v in asdict(self).items() if k not in ("workers", "resume")}


@dataclass(frozen=True)
class Report:
    """Result of a conversion.

    Attributes:
        output_dir: the dataset, a path or a URL.
        episodes: number of episodes written.
        frames: number of rows written.
        seconds: how long it took.
        refused: pairs of episode and reason.
        skipped: sources of episodes that were there already.
        earlier: how many of the episodes were encoded before this run went on with them.
        finished_before: whether there was nothing left to do.
        grip_unstated: how many of the episodes do not say how their grip counts.
        failed: how many of the episodes say that the task was not done.
    """

    output_dir: str
    episodes: int
    frames: int
    seconds: float = 0.0
    refused: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    earlier: int = 0
    finished_before: bool = False
    grip_unstated: int = 0
    failed: int = 0

    def warnings(self) -> list[str]:
        """One line for each episode that was left out, and their number."""
        lines = []
        if self.skipped:
            shown = ", ".join(self.skipped[:SHOWN]) + (", ..." if self.skipped[SHOWN:] else "")
            lines.append(f"skipped {len(self.skipped)} that are in the dataset already: {shown}")
        if self.grip_unstated:
            lines.append(
                f"note: {self.grip_unstated} of {self.episodes} episodes do not say what their grip"
                " counts when it is open, and were converted as they are; if it is not as the codec"
                " says, convert them with --dataset.dataset.grip_open=0 (or 1)"
            )
        if self.failed:
            lines.append(
                f"note: {self.failed} of {self.episodes} episodes say that the task was not done;"
                " to leave them out, filter them by where.eval.success=True"
                " (--dataset.dataset=@positronic.cfg.ds.filtered)"
            )
        if not self.refused:
            return lines
        total = self.episodes + len(self.refused)
        lines += [f"refused {source}: {reason}" for source, reason in self.refused]
        return [*lines, f"warning: {len(self.refused)} of {total} episodes were refused"]

    def summary(self, verb: str = "converted") -> str:
        """What was written, in one line."""
        if self.finished_before:
            return f"{self.output_dir} is finished: {self.episodes} episodes, {self.frames} frames"
        rate = f" ({self.frames / max(self.seconds, 1e-9):.0f} frames/s)"
        counts = [
            f"{verb} {self.episodes} episodes",
            *([f"{self.earlier} of them encoded before"] if self.earlier else []),
            *([f"{len(self.skipped)} skipped"] if self.skipped else []),
            f"{self.frames} frames in {self.seconds:.1f} s{'' if self.earlier else rate}",
        ]
        return f"{', '.join(counts)} to {self.output_dir}"


def report_of(
    output_dir: str, provenance: Provenance, appended: int | None = None, **known: Any
) -> Report:
    """What the provenance of a dataset says of its conversion, or of the last append to it.

    ``appended`` is the number of episodes of that append; ``known`` is what the provenance does
    not say, such as ``seconds``.
    """
    refused = provenance.refused
    episodes = provenance.episodes
    if appended is not None:
        refused = provenance.appended[-1].refused if appended else []
        episodes = episodes[len(episodes) - appended :]
    return Report(
        output_dir,
        len(episodes),
        sum(episode.frames for episode in episodes),
        refused=tuple((each.source, each.reason) for each in refused),
        grip_unstated=sum(not episode.grip_stated for episode in episodes),
        failed=sum(episode.failed for episode in episodes),
        **known,
    )
