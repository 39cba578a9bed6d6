"""Turn what a file library says about a broken file into one line that a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from positronic.errors import EpisodeError

MEND = "restore the file from a copy, or move this episode out of the dataset"


def broken(episode: Path, what: str, why: object, mend: str = MEND) -> EpisodeError:
    """EpisodeError naming the episode directory, the signal or file in it, the reason, the mend."""
    reason = " ".join(str(why).split()) or type(why).__name__
    return EpisodeError(f"episode {episode}: {what}: {reason}; {mend}")


@contextmanager
def reading(episode: Path, what: str) -> Iterator[None]:
    """Report any failure to read as an EpisodeError; what is one already passes unchanged.

    Parquet and video readers raise OSError, ValueError, KeyError and their own kinds for a
    damaged file, so the kind says nothing: inside this block reading is all that happens.
    """
    try:
        yield
    except EpisodeError:
        raise
    except FileNotFoundError as error:
        raise broken(episode, what, f"file {error.filename or ''} is missing") from error
    except Exception as error:
        raise broken(episode, what, error) from error
