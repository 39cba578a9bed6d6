"""Exception hierarchy: robot data, codecs, checkpoints, simulation and sessions.

Every message is one line for a person: what was wrong, what was expected, how to mend it.
``positronic.cli`` prints that line and exits non-zero; the traceback is shown only on request.
Errors of storage and documents are in :mod:`foundation.errors`.

::

    PositronicError
    ├── DatasetError          a raw or converted dataset that is empty, broken or refused
    │   └── EpisodeError      one episode of it: names the episode and the signal
    ├── CodecError            an observation or action that does not fit the codec
    ├── ContractError         two contracts disagree about what was trained
    ├── CheckpointError       a checkpoint that is missing, incomplete or unreadable
    ├── SimulationError       a scene, asset or renderer that cannot be made
    └── SessionError          the inference session: protocol, server gone, refused
        ├── Busy              the server takes no more now; it may later
        └── ServerGone        the connection ended while a reply was due
"""

from foundation.errors import FoundationError


class PositronicError(FoundationError):
    """Base of the errors that this package raises on purpose."""


class DatasetError(PositronicError):
    """A raw or converted dataset that is empty, broken or refused."""


class EpisodeError(DatasetError):
    """One episode of a dataset is broken; the message names the episode and the signal."""


class CodecError(PositronicError):
    """An observation or action does not fit the codec."""


class ContractError(PositronicError):
    """Two contracts disagree about what was trained; the message names both sides."""


class CheckpointError(PositronicError):
    """A checkpoint is missing, incomplete or unreadable."""


class SimulationError(PositronicError):
    """A scene, asset or renderer cannot be made."""


class SessionError(PositronicError):
    """The inference session failed: protocol violation, refusal or error reply."""


class Busy(SessionError):
    """The server is full, in sessions or in queued requests; a later retry may succeed."""


class ServerGone(SessionError):
    """The connection to the inference server ended while a reply was due."""
