"""Compare a codec with recordings, before anything slow begins: signals, and how large they are."""

import sys

from foundation.errors import FoundationError, StorageError
from positronic.codec import Codec
from positronic.dataset import Dataset, Episode
from positronic.dataset.conventions import adapted
from positronic.errors import DatasetError, EpisodeError
from positronic.vendors.lerobot.conversion.encode_episode import read_by, source_of
from positronic.vendors.lerobot.conversion.fitting import fitting_flags
from positronic.vendors.lerobot.conversion.resample import require_signals


def sized_by(dataset: Dataset, codec: Codec) -> Codec:
    """Return the codec with the sizes that it leaves open, taken from the first recording.

    Says what it took; the contract will state it.

    Raises:
        DatasetError: no recording has all signals that the codec reads.
    """
    if not codec.unsized:
        return codec
    for index in range(len(dataset)):
        try:
            episode = dataset[index]
            require_read(episode, codec)
            sizes = {name: _elements(episode, codec, name) for name in codec.unsized}
        except StorageError:
            raise
        except FoundationError:
            continue
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        print(f"numbers per sample, from {source_of(episode)}: {found}", file=sys.stderr)
        return codec.sized(sizes)
    require_any(dataset, codec)
    raise DatasetError(f"no episode could be read for the sizes of {', '.join(codec.unsized)}")


def _elements(episode: Episode, codec: Codec, name: str) -> int:
    names = read_by(codec)
    signal = adapted(episode, names, codec.meta.get("grip")).signals[name]
    if signal.kind != "numeric" or len(signal.shape) > 1:
        raise EpisodeError(f"its {name} is no vector of numbers, but of shape {signal.shape}")
    return int(signal.shape[0]) if signal.shape else 1


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
    choose = " or ".join(f"--codec={name}" for name in fitting) or fitting_flags(episode)
    if not choose:
        return "record them, or write a codec of your own for what there is"
    return f"choose {choose}, which fits, or record them"
