"""Robots: recordings, codecs, simulation, inference over a network, rollouts and their reports.

Exports its errors; everything else is in its packages: :mod:`positronic.dataset`,
:mod:`positronic.codec`, :mod:`positronic.policy`, :mod:`positronic.simulator`,
:mod:`positronic.offboard`, :mod:`positronic.inference`, :mod:`positronic.vendors.lerobot`.
"""

from positronic.errors import (
    Busy,
    CheckpointError,
    CodecError,
    ContractError,
    DatasetError,
    EpisodeError,
    PositronicError,
    ServerGone,
    SessionError,
    SimulationError,
)

__all__ = [
    "Busy",
    "CheckpointError",
    "CodecError",
    "ContractError",
    "DatasetError",
    "EpisodeError",
    "PositronicError",
    "ServerGone",
    "SessionError",
    "SimulationError",
]
