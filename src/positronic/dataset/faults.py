"""Turn a file library's error about a broken file into one line that a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.text import printable
from positronic.errors import EpisodeError

LONGEST = 1000  # characters; paths may be long
MEND = "restore the file from a copy, or move this episode out of the dataset"


def broken(episode: Path | str, what: str, why: object, mend: str = MEND) -> EpisodeError:
    """EpisodeError naming the episode directory, the signal or file in it, the reason, the mend."""
    # The bare words of an error with a number, which is all that libraries add to it.
    words = getattr(why, "strerror", None) or str(why)
    reason = printable(words, LONGEST) or type(why).__name__
    return EpisodeError(f"episode {printable(episode, LONGEST)}: {what}: {reason}; {mend}")


@contextmanager
def reading(episode: Path | str, what: str, *files: Path) -> Iterator[None]:
    """Report any failure to read as an EpisodeError; of ``files`` it names the one that is missing.

    Parquet and video readers raise OSError, ValueError, KeyError and their own kinds for a
    damaged file, so the kind says nothing: inside this block reading is all that happens.
    """
    try:
        yield
    except EpisodeError:
        raise
    except FileNotFoundError as error:
        absent = [file.name for file in files if not file.exists()] or [error.filename]
        raise broken(episode, what, f"file {absent[0]} is missing") from error
    except Exception as error:
        if type(error) is MemoryError:  # those of libraries are of a size that a file asked for
            raise
        raise broken(episode, what, error) from error
