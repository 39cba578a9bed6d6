"""Convert errors of file libraries about broken files into one-line EpisodeErrors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.text import printable
from positronic.errors import EpisodeError

LONGEST = 1000  # characters; paths may be long
MEND = "restore the file from a copy, or move this episode out of the dataset"


def broken(episode: Path | str, what: str, why: object, mend: str = MEND) -> EpisodeError:
    """EpisodeError naming the episode directory, the signal or file, the reason, the remedy."""
    # Of an OSError only the text: str() would repeat the errno and path.
    words = getattr(why, "strerror", None) or str(why)
    reason = printable(words, LONGEST) or type(why).__name__
    return EpisodeError(f"episode {printable(episode, LONGEST)}: {what}: {reason}; {mend}")


@contextmanager
def reading(episode: Path | str, what: str, *files: Path) -> Iterator[None]:
    """Convert any failure to read to an EpisodeError, which names the missing one of ``files``.

    Parquet and video readers raise OSError, ValueError, KeyError and their own classes for a
    damaged file, so every class is converted; the block must do nothing but read.
    """
    try:
        yield
    except EpisodeError:
        raise
    except FileNotFoundError as error:
        absent = [file.name for file in files if not file.exists()] or [error.filename]
        raise broken(episode, what, f"file {absent[0]} is missing") from error
    except Exception as error:
        if type(error) is MemoryError:  # subclasses, from libraries, mean a size read from the file
            raise
        raise broken(episode, what, error) from error
