"""Edit logs as they were applied to a dataset: who was dropped, and why.

Part of the provenance of converted datasets and of checkpoints, and read from there as well.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from foundation.documents import Document
from foundation.text import printable

# Reasons in a summary, and characters of each: a log may hold a text for each episode.
SHOWN, LONGEST = 5, 60


class Dropped(Document):
    """An episode that an edit log leaves out.

    Attributes:
        source: path or URL of the recording.
        uid: its uid.
        why: the reason in the log, if it gives one.
    """

    source: str
    uid: str
    why: str | None = None


class Edits(Document):
    """Edit logs as they apply to a dataset.

    Attributes:
        digest: SHA-256 of their records, in hex.
        dropped: the episodes that they leave out.
    """

    digest: Annotated[str, Field(max_length=64)]
    dropped: Annotated[tuple[Dropped, ...], Field(strict=False)] = ()

    @classmethod
    def together(cls, parts: Iterable["Edits | None"]) -> "Edits | None":
        """The edits of several datasets as one; None if none has any."""
        found = [part for part in parts if part is not None]
        if len(found) < 2:
            return found[0] if found else None
        digest = hashlib.sha256("".join(part.digest for part in found).encode()).hexdigest()
        return cls(digest=digest, dropped=tuple(each for part in found for each in part.dropped))

    def summary(self, kept: int) -> str:
        """Line for a person: "41 of 50 episodes: 9 dropped by edits (7 spilled, 2 unexplained)"."""
        count = len(self.dropped)
        return f"{kept} of {kept + count} episodes: {count} dropped by edits ({self.reasons})"

    @property
    def reasons(self) -> str:
        """How many were dropped for which reason, the most frequent first."""
        reasons = Counter(each.why or "unexplained" for each in self.dropped).most_common()
        shown = [f"{count} {printable(why, LONGEST)}" for why, count in reasons[:SHOWN]]
        more = [f"and {len(reasons) - SHOWN} more reasons"] if reasons[SHOWN:] else []
        return ", ".join([*shown, *more])
