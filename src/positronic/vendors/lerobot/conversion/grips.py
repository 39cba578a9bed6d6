"""Grip convention check: reject a dataset if only some recordings state their convention.

Recordings that state one are converted to the codec's convention, others are used unchanged. Mixed,
they could have opposite conventions without any error.
"""

from collections.abc import Sequence

from foundation.errors import FoundationError, StorageError
from positronic.codec import Codec
from positronic.dataset import Dataset
from positronic.dataset.conventions import grip_convention
from positronic.errors import DatasetError
from positronic.vendors.lerobot.conversion.encode_episode import source_of
from positronic.vendors.lerobot.conversion.provenance import Recording

FLAG = "--dataset.dataset.grip_open=0 (or 1)"


def require_one_convention(dataset: Dataset, codec: Codec, there: Sequence[Recording] = ()) -> None:
    """Check that all recordings or none state their grip convention.

    Args:
        dataset: Recordings to convert.
        codec: The codec; if it does not read a grip, nothing is checked.
        there: Recordings that are already in the dataset.

    Raises:
        DatasetError: with the first that does not state it, and the flag to declare it.
    """
    if codec.meta.get("grip") is None:
        return
    unstated, stated = _by_statement(dataset)
    known = [recording for recording in there if recording.grip_stated]
    if unstated and (stated or known):
        raise DatasetError(
            f"{len(unstated)} recordings do not state their grip convention, the"
            f" first is {unstated[0]}, and {stated + len(known)} others do; declare it for those"
            f" that do not with {FLAG}, converting them separately or appending them"
        )
    if stated and there and not known:
        raise DatasetError(
            f"the {len(there)} episodes of the dataset come from recordings that do not state their"
            " grip convention, and those to be appended do; convert all of them"
            f" again, the former with {FLAG}"
        )


def _by_statement(dataset: Dataset) -> tuple[list[str], int]:
    """Sources of recordings without a stated convention, and number of those with one."""
    unstated, stated = [], 0
    for index in range(len(dataset)):
        try:
            episode = dataset[index]
            if grip_convention(episode) is None:
                unstated.append(source_of(episode))
            else:
                stated += 1
        except StorageError:
            raise
        except FoundationError:
            continue
    return unstated, stated
