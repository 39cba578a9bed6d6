"""Reader of a checkpoint's provenance: what it says of its training, for a policy's meta."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from foundation.documents import Document, InvalidDocument, Reader
from positronic.dataset.applied_edits import Edits
from positronic.dataset.trained_on import DIGITS, DROPPED, RECORDINGS, TRAINED_ON

# In a checkpoint's ``pretrained_model``, written by training.
PROVENANCE = "provenance.json"
# More would be 400 kB in each ready message.
MOST_RECORDINGS = 50_000
_READER = Reader(error=InvalidDocument)


class _Dataset(Document):
    root: Annotated[str, Field(max_length=4096)] = ""
    edits: list[Edits] = Field(default_factory=list)
    recordings: Annotated[
        str, Field(pattern=rf"^([0-9a-f]{{{DIGITS}}})*$", max_length=DIGITS * MOST_RECORDINGS)
    ] = ""


class _Provenance(Document):
    dataset: _Dataset = _Dataset()


def trained_on(pretrained_model: Path) -> dict[str, Any]:
    """Return ``{"trained_on": ...}``, see `positronic.dataset.trained_on`.

    Empty if the checkpoint does not say it, or not readably: nothing else depends on it.
    """
    file = pretrained_model / PROVENANCE
    try:
        dataset = _READER.load_json(file, _Provenance).dataset
    except (OSError, InvalidDocument):
        return {}
    name = dataset.root.rstrip("/").rpartition("/")[2]  # not the path on this machine
    if not name:
        return {}
    said: dict[str, Any] = {"dataset": name, RECORDINGS: dataset.recordings}
    if dropped := sum(len(edits.dropped) for edits in dataset.edits):
        said |= {DROPPED: dropped, "edits": [edits.digest for edits in dataset.edits]}
    return {TRAINED_ON: said}
