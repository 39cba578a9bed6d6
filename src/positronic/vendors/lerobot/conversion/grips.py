"""Grip convention check: refuse a dataset of which only some recordings state their convention.

Whoever states how the grip counts is turned to what the codec says; whoever does not is taken as
it is. The two together may count opposite ways, and nothing would show it.
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
    """Refuse recordings of which some state how their grip counts and others do not.

    Args:
        dataset: Those to be converted.
        codec: What they go through; one that reads no grip takes anything.
        there: Those that are in the dataset already.

    Raises:
        DatasetError: naming the first that states nothing, and the flag that states it.
    """
    if codec.meta.get("grip") is None:
        return
    silent, stated = _told_apart(dataset)
    known = [recording for recording in there if recording.grip_stated]
    if silent and (stated or known):
        raise DatasetError(
            f"{len(silent)} recordings do not say what their grip counts when it is open, the"
            f" first is {silent[0]}, and {stated + len(known)} others do; say it for those that do"
            f" not, converted apart or appended, with {FLAG}"
        )
    if stated and there and not known:
        raise DatasetError(
            f"the {len(there)} episodes of the dataset come from recordings that do not say what"
            " their grip counts when it is open, and those to be appended do; convert all of them"
            f" anew, the former with {FLAG}"
        )


def _told_apart(dataset: Dataset) -> tuple[list[str], int]:
    """Sources of the recordings that state nothing, and how many do; broken ones are neither."""
    silent, stated = [], 0
    for index in range(len(dataset)):
        try:
            episode = dataset[index]
            if grip_convention(episode) is None:
                silent.append(source_of(episode))
            else:
                stated += 1
        except StorageError:
            raise
        except FoundationError:
            continue
    return silent, stated
