"""Options and report of a conversion."""

from dataclasses import asdict, dataclass
from typing import Any

from positronic.vendors.lerobot.conversion.provenance import Provenance

SHOWN = 3


@dataclass(frozen=True)
class Options:
    """Settings of a conversion that have a default.

    Attributes:
        task: task of all episodes, instead of each episode's own.
        video: store images as video, otherwise as PNG.
        workers: number of encoding processes, 0 for this one only; by default one per CPU if there
            are images.
        vcodec: one of `VCODECS`.
        robot_type: written to the dataset, instead of the first episode's.
        share: share of the episodes, selected at random, kept in order.
        seed: seed of the selection.
        resume: continue an unfinished conversion.
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
        """The options that affect the result."""
        return {k: v for k, v in asdict(self).items() if k not in ("workers", "resume")}


@dataclass(frozen=True)
class Report:
    """Result of a conversion.

    Attributes:
        output_dir: the dataset, a path or a URL.
        episodes: number of episodes written.
        frames: number of rows written.
        seconds: duration.
        refused: pairs of episode and reason.
        skipped: sources of episodes that were already in the dataset.
        earlier: number of episodes that were encoded before this run resumed.
        finished_before: whether nothing was left to do.
        grip_unstated: number of episodes that do not state their grip convention.
        failed: number of episodes whose ``eval.success`` is False.
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
        """Lines about skipped, doubtful and refused episodes."""
        lines = []
        if self.skipped:
            shown = ", ".join(self.skipped[:SHOWN]) + (", ..." if self.skipped[SHOWN:] else "")
            lines.append(f"skipped {len(self.skipped)} that are already in the dataset: {shown}")
        if self.grip_unstated:
            lines.append(
                f"note: {self.grip_unstated} of {self.episodes} episodes do not state their grip"
                " convention, and were converted unchanged; if it is not the codec's, convert them"
                " with --dataset.dataset.grip_open=0 (or 1)"
            )
        if self.failed:
            lines.append(
                f"note: {self.failed} of {self.episodes} episodes have eval.success=False;"
                " to leave them out, filter them by where.eval.success=True"
                " (--dataset.dataset=@positronic.cfg.ds.filtered)"
            )
        if not self.refused:
            return lines
        total = self.episodes + len(self.refused)
        lines += [f"refused {source}: {reason}" for source, reason in self.refused]
        return [*lines, f"warning: {len(self.refused)} of {total} episodes were refused"]

    def summary(self, verb: str = "converted") -> str:
        """One-line summary."""
        if self.finished_before:
            return f"{self.output_dir} is finished: {self.episodes} episodes, {self.frames} frames"
        rate = f" ({self.frames / max(self.seconds, 1e-9):.0f} frames/s)"
        counts = [
            f"{verb} {self.episodes} episodes",
            *([f"{self.earlier} of them encoded before"] if self.earlier else []),
            *([f"{len(self.skipped)} skipped"] if self.skipped else []),
            f"{self.frames} frames in {self.seconds:.1f} s{'' if self.earlier else rate}",
        ]
        return ", ".join(counts)


def report_of(
    output_dir: str, provenance: Provenance, appended: int | None = None, **known: Any
) -> Report:
    """Report of a conversion, or of the last append, from the provenance of the dataset.

    ``appended`` is the number of episodes of the append; ``known`` are fields that are not in the
    provenance, such as ``seconds``.
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
