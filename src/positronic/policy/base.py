"""Policy and session protocols: two small interfaces, implemented locally or by a server."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

Action = dict[str, Any]
"""One command for the robot by name: ``robot_command``, ``target_grip``."""


@runtime_checkable
class Session(Protocol):
    """One episode of one robot with a policy. Sessions share no state; a new one is a reset."""

    @property
    def meta(self) -> dict[str, Any]:
        """What the policy says of itself: ``type``, ``action_fps``, ``contract`` and so on."""

    def infer(self, obs: Mapping[str, Any]) -> list[Action]:
        """Answer one observation with a chunk of actions.

        Args:
            obs: Raw signals by name (``robot_state.ee_pose``, ``grip``, ``image.wrist``, ...)
                and ``task``.

        Returns:
            Actions in the order of time. Each holds ``robot_command`` (a mapping with ``type``),
            ``target_grip`` (1 = open) and, as a rule, ``timestamp``: seconds after the moment of
            the observation at which it is due.

        Raises:
            PositronicError: The observation does not fit; the session can go on.
            ServerGone: The session is over.
        """

    def close(self) -> None:
        """End the session. More calls of ``close`` do nothing."""


@runtime_checkable
class Policy(Protocol):
    """Something that can control a robot: a loaded checkpoint, or a server that has one."""

    @property
    def meta(self) -> dict[str, Any]:
        """What the policy says of itself, the same as its sessions say."""

    def new_session(self, context: Mapping[str, Any] | None = None) -> Session:
        """Start an episode; ``context`` (such as ``task``) is added to every observation."""

    def close(self) -> None:
        """Give back what the policy holds. More calls of ``close`` do nothing."""
