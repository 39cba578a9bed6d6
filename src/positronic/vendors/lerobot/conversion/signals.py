"""Check that recordings have the signals that a codec reads, before anything slow begins."""

from foundation.errors import FoundationError, StorageError
from positronic.codec import Codec
from positronic.dataset import Dataset, Episode
from positronic.dataset.conventions import adapted
from positronic.errors import DatasetError, EpisodeError
from positronic.vendors.lerobot.conversion.encode_episode import read_by, source_of
from positronic.vendors.lerobot.conversion.resample import require_signals


def require_any(dataset: Dataset, codec: Codec) -> None:
    """Check that at least one recording has all signals that the codec reads.

    Raises:
        DatasetError: none has; says which codec fits the first one.
    """
    reason = ""
    for index in range(len(dataset)):
        try:
            require_read(dataset[index], codec)
        except StorageError:
            raise
        except EpisodeError as error:
            reason = reason or str(error)
        except FoundationError:
            return  # damaged: its conversion says how
        else:
            return
    first = dataset[0]
    raise DatasetError(
        f"none of the {len(dataset)} episodes can be converted; the first,"
        f" {source_of(first)}: {reason}; {_mend(first)}"
    )


def require_read(episode: Episode, codec: Codec) -> None:
    """Check that a recording has all signals that the codec reads.

    Raises:
        EpisodeError: it has not.
    """
    names = read_by(codec)
    require_signals(adapted(episode, names, codec.meta.get("grip")), names)


def _mend(episode: Episode) -> str:
    from positronic.vendors.lerobot import codecs

    fitting = []
    for name in codecs.__all__:
        try:
            require_read(episode, getattr(codecs, name)())
        except EpisodeError:
            continue
        fitting.append(name)
    choose = " or ".join(f"--codec={name}" for name in fitting)
    if not choose:
        return "record them, or write a codec of your own for what there is"
    return f"choose {choose}, which fits, or record them"
